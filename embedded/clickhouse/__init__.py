"""The ClickHouse engine (chdb) in a process of its own, behind ClickHouse's HTTP interface."""
