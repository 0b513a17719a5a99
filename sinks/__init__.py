"""Clean events and dead letters in, ClickHouse rows out."""
