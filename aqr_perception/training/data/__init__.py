"""Data sets: each gives `HealthyFrame`s or `LabelledFrame`s by index."""
