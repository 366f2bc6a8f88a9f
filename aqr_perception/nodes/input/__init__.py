"""Sensor messages -> frames."""
