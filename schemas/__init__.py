"""What every event, topic, table and reason looks like, in one place."""
