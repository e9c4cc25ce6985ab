"""Cause faults under load, and count what they do."""
