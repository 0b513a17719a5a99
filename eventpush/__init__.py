"""The command line: imports everything, nobody imports it."""
