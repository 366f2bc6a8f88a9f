"""Conversion of results to messages, and the node's publishers."""
