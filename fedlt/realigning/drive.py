"""Rounds of a strategy from a given state, without a run directory: what comes after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.flower.server_half import make_server_half

if TYPE_CHECKING:
    from fedlt.engines.engine import Engine
    from fedlt.federation import ServerView
    from fedlt.federation.ledger import RoundOutcome
    from fedlt.flower.adapter import ServerHalf
    from fedlt.strategy import ServerState


def drive(
    view: ServerView, engine: Engine, state: ServerState, rounds: int
) -> tuple[ServerState, list[list[int]]]:
    """Run rounds and return the last state, and who answered in each.

    Args:
        view: Its strategy takes the steps; the engine has the same.
        engine: Where the clients' tasks run; their personal states are not kept.
        state: The rounds are counted on from its ``round``.
        rounds: How many.
    """
    server = make_server_half(view)
    server.set_state(state)
    numbers = range(state.round + 1, state.round + rounds + 1)
    cohorts = [list(play_round(server, engine, number).answered) for number in numbers]
    return server.state, cohorts


def play_round(server: ServerHalf, engine: Engine, round_: int) -> RoundOutcome:
    """Return the outcome of a round, which is in force; personal states are left to the caller."""
    plan = server.plan(round_, server.cohort(round_, engine))
    replies = engine.train(server.tasks(round_, plan), reduce=server.reduces)
    outcome = server.aggregate(round_, plan, replies)
    server.adopt(outcome)
    return outcome
