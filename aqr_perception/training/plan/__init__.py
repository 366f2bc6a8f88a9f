"""Trainings from files and flags: one training, and plans of several stages."""
