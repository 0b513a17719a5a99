"""Real Kafka and the real ClickHouse engine on a machine without Docker."""
