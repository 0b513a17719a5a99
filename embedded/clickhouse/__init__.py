"""The ClickHouse engine (chdb) in a process of its own, behind a door that speaks ClickHouse's HTTP interface."""
