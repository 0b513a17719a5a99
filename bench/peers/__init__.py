"""What the pipeline is compared with: the same work, written the ordinary way."""
