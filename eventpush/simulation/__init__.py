"""The sender, played: a fleet that makes events, a sender that repeats them, a verdict on what became of them."""
