"""Dead letters for operators: list them, show one, repair their payloads, and replay them through the raw topic."""
