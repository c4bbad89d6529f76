"""The config: reading, validation and messages."""
