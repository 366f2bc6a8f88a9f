"""Proposals: queries that start at peaks of the branches' heat maps."""
