"""Adaptive query routing (AQR): per-query weights of LiDAR and cameras, their use in attention, and their maps."""
