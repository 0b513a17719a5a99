"""How every process reaches Kafka and creates its topics."""
