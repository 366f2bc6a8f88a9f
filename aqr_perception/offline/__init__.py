"""Bags through the node's own steps, without DDS."""
