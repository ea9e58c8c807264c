"""Optimisers whose step the stacked engine can take for many clients at once."""
