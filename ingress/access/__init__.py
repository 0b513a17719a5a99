"""Who may send: addresses, tokens, signatures, rate limits."""
