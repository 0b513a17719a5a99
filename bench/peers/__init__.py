"""Peers for comparison: the same work, implemented in the ordinary way."""
