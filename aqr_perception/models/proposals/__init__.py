"""Proposals: peaks of the branches' heat maps as the start of queries."""
