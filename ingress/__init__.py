"""A request in, published bytes and a status out."""
