"""Judgement of the sensors' stamps."""
