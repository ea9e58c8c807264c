"""Heads changed after training, on the checkpoint of a run: ``fedlt realign``.

``changes.py`` has the methods, each a change of a linear head or of a client's features.
``linear_head.py`` finds the tensors that are a strategy's generic linear head. ``realigned.py`` is
the strategy with that head changed. ``drive.py`` sends one round of messages to the clients.
``session.py`` opens a run, scores it before and after the change, and describes the outcome.
"""

from __future__ import annotations
