"""The only modules that use private parts of a library, one module per library; `install` patches it explicitly."""
