"""Conversion of sensor messages to frames."""
