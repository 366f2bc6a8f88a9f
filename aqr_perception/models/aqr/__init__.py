"""Adaptive query routing: what each query's LiDAR and camera evidence is worth, shown and used."""
