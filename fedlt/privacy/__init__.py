"""Differential privacy: clipping, noise, and how much of it a run spends (docs/privacy.md)."""
