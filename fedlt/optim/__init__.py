"""Parts of a local training step: batches and phases, and the optimisers.

The stacked engine takes a step of these optimisers for many clients at once.
"""
