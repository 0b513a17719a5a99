"""Run real Kafka and the real ClickHouse engine on one machine, without Docker."""
