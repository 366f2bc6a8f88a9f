"""Adaptive query routing (AQR): per-query weights of LiDAR and cameras, their effect on the model, and their maps."""
