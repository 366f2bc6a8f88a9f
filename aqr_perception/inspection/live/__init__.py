"""Inspection of a running system over DDS."""
