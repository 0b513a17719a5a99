"""Settings, logging, metrics, health: what every process needs."""
