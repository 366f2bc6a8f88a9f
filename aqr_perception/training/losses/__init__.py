"""Losses of detections, proposals and query weights."""
