"""The demo: a simulated drive through the real node, with sensors that fail, and what becomes of it."""
