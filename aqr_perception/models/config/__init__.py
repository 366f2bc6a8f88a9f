"""Presets: the typed configuration of the models."""
