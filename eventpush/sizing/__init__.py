"""What a load needs, computed from the benchmark's figures."""
