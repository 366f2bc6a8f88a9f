"""Proposals: heat maps of the sensors' branches as the start of queries."""
