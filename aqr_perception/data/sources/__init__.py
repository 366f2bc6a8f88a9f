"""Data sets of labelled frames."""
