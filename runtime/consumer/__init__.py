"""The consumer engine: batches, partition tasks, the worker's life, lag, the watchdog."""
