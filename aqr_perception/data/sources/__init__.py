"""Data sets: each gives `FrameWithHealth`s or `LabelledFrame`s by index."""
