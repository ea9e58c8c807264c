"""Rounds of a strategy from a given state, without a run directory: what comes after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import ConfigRecord

from fedlt.flower.records import array_record
from fedlt.flower.server_half import make_server_half

if TYPE_CHECKING:
    from fedlt.engines.engine import Engine
    from fedlt.federation.federation import Federation
    from fedlt.strategy import ServerState


def drive(
    federation: Federation, engine: Engine, state: ServerState, rounds: int
) -> tuple[ServerState, list[list[int]]]:
    """Run rounds and return the last state, and who answered in each.

    Args:
        federation: Its strategy takes the steps; the engine has the same.
        engine: Where the clients' tasks run; their personal states are not kept.
        state: The rounds are counted on from its ``round``.
        rounds: How many.
    """
    server = make_server_half(federation)
    server.set_state(state)
    server.fixed = array_record(state.fixed)
    cohorts = []
    for round_ in range(state.round + 1, state.round + rounds + 1):
        arrays = array_record(server.state.broadcast)
        messages = server.configure_train(round_, arrays, ConfigRecord(), engine)
        server.aggregate_train(round_, engine.map_reduce(messages))
        cohorts.append(list(server.cohort))
    return server.state, cohorts
