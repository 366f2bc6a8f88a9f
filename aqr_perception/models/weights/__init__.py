"""Checkpoints, shipped weights, and branches taken over from other models."""
