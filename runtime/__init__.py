"""What every process needs and none owns: settings, logging, metrics, health, signals."""
