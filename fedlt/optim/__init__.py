"""Optimisers whose step a stacked engine can take for many clients at once."""
