"""The command line: imports all other packages; none imports it."""
