"""Messages to frames."""
