"""Simulated sensor failures in labelled frames."""
