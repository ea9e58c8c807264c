"""Rounds of a strategy from a given state, without a run directory, for rounds after a run."""

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
    """Return the state after some rounds, and for each round the clients that answered.

    Args:
        view: The server's view; the engine has the same strategy.
        engine: The engine of the clients' tasks; personal states are not kept.
        state: The state to begin with; round numbers continue from ``state.round``.
        rounds: Number of rounds.
    """
    server = make_server_half(view)
    server.set_state(state)
    numbers = range(state.round + 1, state.round + rounds + 1)
    cohorts = [list(play_round(server, engine, number).answered) for number in numbers]
    return server.state, cohorts


def play_round(server: ServerHalf, engine: Engine, round_: int) -> RoundOutcome:
    """Return the outcome of a round and adopt its state; personal states are not committed."""
    plan = server.plan(round_, server.cohort(round_, engine))
    replies = engine.train(server.tasks(round_, plan), reduce=server.reduces)
    outcome = server.aggregate(round_, plan, replies)
    server.adopt(outcome)
    return outcome
