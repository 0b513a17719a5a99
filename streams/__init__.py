"""Raw bytes in, an outcome out: validate, deduplicate, enrich, publish."""
