"""Trace an event: find what Kafka and ClickHouse hold of it, and put it in order."""
