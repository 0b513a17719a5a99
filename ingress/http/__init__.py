"""The HTTP server: connections, responses, processes, TLS."""
