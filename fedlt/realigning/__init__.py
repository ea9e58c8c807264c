"""Heads changed after training, on the checkpoint of a run: ``fedlt realign``.

``changes.py`` has the methods, each a change of a linear head. ``linear_head.py`` finds the tensors
of a strategy's generic linear head. ``realigned.py`` is the strategy with that head changed.
``drive.py`` sends rounds of messages to the clients.
``session.py`` opens a run, scores it before and after the change, and describes the outcome.
"""

from __future__ import annotations
