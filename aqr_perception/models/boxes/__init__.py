"""Prediction heads and the coding of boxes."""
