"""Checkpoints, shipped weights, and transfer of branches between models."""
