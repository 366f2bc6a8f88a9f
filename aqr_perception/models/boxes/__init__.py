"""Prediction heads and box codes."""
