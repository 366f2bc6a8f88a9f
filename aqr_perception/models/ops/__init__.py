"""Faster implementations of standard operations, with the same results."""
