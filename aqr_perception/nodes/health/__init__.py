"""Health of sensors and topics, and its publication."""
