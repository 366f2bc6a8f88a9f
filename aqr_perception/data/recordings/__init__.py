"""Recorded drives of data sets, read sensor by sensor, and their conversion to bags."""
