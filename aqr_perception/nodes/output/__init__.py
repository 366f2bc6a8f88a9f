"""Results to messages."""
