"""Simulate a sender: a fleet generates events, a sender delivers them, a comparison checks what was stored."""
