"""A round by hand: the server half and an engine, driven by a test."""

from __future__ import annotations

from fedlt.realigning import drive


def tasks_of(server, engine, round_=1):
    """Return the messages of a round."""
    return server.tasks(round_, server.plan(round_, server.cohort(round_, engine)))


def play_round(server, engine, round_=1):
    """Return the outcome of a round, which is in force, personal states among it."""
    outcome = drive.play_round(server, engine, round_)
    engine.commit(outcome.used)
    return outcome
