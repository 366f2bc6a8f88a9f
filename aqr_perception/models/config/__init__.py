"""Presets: the typed configuration of every model."""
