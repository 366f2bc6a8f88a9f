"""Sensor failures applied to labelled frames."""
