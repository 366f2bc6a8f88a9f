"""Transformer decoder: attention with windowed bias, decoder layers and position embeddings."""
