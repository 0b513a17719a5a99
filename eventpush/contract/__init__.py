"""The contract with subscribers, as files: JSON Schemas, an AsyncAPI document, and a page for each topic."""
