"""Erase a device or a driver from every store, and search for what is left."""
