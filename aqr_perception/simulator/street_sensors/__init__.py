"""Sensors of world 2: LiDAR and camera models, sweeps and pictures."""
