"""Tests of NewStrategy: the contract, and what follows from its equation."""

from __future__ import annotations

from pathlib import Path

from fedlt.check import conformance, frozen, subject_of

NAME = f"{Path(__file__).with_name('new_strategy.py')}:NewStrategy"

test_contract = conformance(NAME, mu=0.1)  # one case per promise, as in `fedlt check`


def test_no_pull_is_federated_averaging() -> None:
    """With mu = 0 the term adds zero to loss and gradient: equal bits to fedavg."""
    mine = subject_of(NAME, {"mu": 0.0}).bench().task(1)
    assert frozen(mine) == frozen(subject_of("fedavg", {}).bench().task(1))


def test_a_pull_keeps_the_client_near_the_broadcast() -> None:
    """The larger mu is, the less a client moves away."""
    moved = []
    for mu in (0.0, 1.0, 5.0):
        bench = subject_of(NAME, {"mu": mu}).bench()
        start, update = bench.server.state.broadcast, bench.task(1)
        names = bench.worker.model.parameter_names("shared")
        moved.append(sum(float((update.sums[n] - start[n]).square().sum()) for n in names))
    assert moved == sorted(moved, reverse=True)
