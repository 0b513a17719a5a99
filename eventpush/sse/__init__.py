"""Events as server-sent events, for those who cannot read Kafka."""
