"""Everything that reaches into private parts of a library, one module per library."""
