"""Conversion of results to messages, and their publication."""
