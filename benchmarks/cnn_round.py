"""Seconds a round of training a small CNN: fedlt's engines, stock Flower, and the physical limit.

100 clients, 10 a round, 160 CIFAR-10 images a client, the model ``cnn`` of width 16, batches of 32,
5 and 20 local steps, one torch thread a process, no evaluation in any peer:

    limit     a plain PyTorch loop, as many processes at once as cores: each trains its share of the
              cohort, and nothing is sent, summed or written; the mean of the processes
    serial    fedlt's engine in the driver's process: one core
    ray       fedlt's Ray engine, one worker a core
    flower    stock Flower's simulation, one Ray actor a core (flower_cnn.py)
    alone     the plain loop on one core while the others are idle, with the work of one process of
              the limit
    ray_1     the Ray engine with 1 worker and the share of the cohort that one worker has in `ray`

``limit/alone`` is what the machine takes for using all its cores, ``ray/ray_1`` weak scaling: 1 is
perfect. ``serial/alone, all clients`` sets the serial engine against the plain loop on one core.
``same_bits``: a client's weights are the same after fedlt's task and the plain loop.

    FEDLT_DATA=... python benchmarks/cnn_round.py [--turns 30] [--steps 5,20] [--cores 2]

takes about 7 minutes on 2 idle cores and prints one JSON object. All peers are up at the same time
and take turns of one round. Expect ray at 1.1 times the limit, and Flower at 1.7 times ray at 5
steps.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import ExitStack
from typing import Any

import torch
from cnn_workload import CLIENTS, PlainLoop, cnn_federation
from fedlt_peer import run_rounds
from turns import Peer, Turns, alternate, ratios, spread

from fedlt.machine.heap import keep_freed_memory
from fedlt.worker.worker import Worker, prepare_process

COHORT = 10
WARM_UP = 3  # rounds that are not counted
RATIOS = {
    "ray/limit": ("ray", "limit"),
    "flower/limit": ("flower", "limit"),
    "flower/ray": ("flower", "ray"),
    "ray/ray_1": ("ray", "ray_1"),
    "limit/alone": ("limit", "alone"),
}


def run_plain(turns: Turns, steps: int, cohort: int, *, first: int) -> None:
    """Take turns of training ``cohort`` clients in a plain loop (in a child)."""
    prepare_process()
    keep_freed_memory()
    loop = PlainLoop(cnn_federation(steps, cohort))
    start = {name: tensor.clone() for name, tensor in loop.model.state_dict().items()}
    round_ = 0
    while turns.next():
        round_ += 1
        for number in range(cohort):
            loop.train((first + number) % CLIENTS, round_, start)


def has_same_bits(steps: int) -> bool:
    """Say whether a task of fedlt and the plain loop end in the same weights."""
    prepare_process()
    federation = cnn_federation(steps, COHORT)
    worker, loop = Worker(federation.shares), PlainLoop(federation)
    start = {name: tensor.clone() for name, tensor in loop.model.state_dict().items()}
    loop.train(3, 1, start)
    worker.train(worker.client(3, 1, start, fixed={}, personal={}))
    trained = worker.model.state()
    return all(torch.equal(trained[name], t) for name, t in loop.model.state_dict().items())


def measure(steps: int, turns: int, cores: int) -> dict[str, Any]:
    """Let all peers take turns; return seconds a round and their ratios."""
    share = COHORT // cores
    calls: dict[str, tuple[object, ...]] = {
        "serial": ("engine", steps, COHORT, "serial", 1),
        "ray": ("engine", steps, COHORT, "ray", cores),
        "ray_1": ("engine", steps, share, "ray", 1),
        "flower": ("flower", steps, COHORT, cores, WARM_UP + turns),
        **{f"plain_{core}": ("plain", steps, share, core * share) for core in range(cores)},
    }
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(Peer([__file__, "--child", json.dumps(call)]))
            for name, call in calls.items()
        }
        for peer in peers.values():
            peer.wait()
        teams = {name: [peers[name]] for name in ("serial", "ray", "ray_1", "flower")}
        teams["limit"] = [peers[f"plain_{core}"] for core in range(cores)]
        teams["alone"] = [peers["plain_0"]]
        seconds = alternate(teams, turns, warm_up=WARM_UP)
    rounds = {name: spread(values) for name, values in seconds.items()}
    found = {name: ratios(seconds[a], seconds[b]) for name, (a, b) in RATIOS.items()}
    one_core = [cores * value for value in seconds["alone"]]
    found["serial/alone, all clients"] = ratios(seconds["serial"], one_core)
    return {"same_bits": has_same_bits(steps), "seconds_a_round": rounds, "ratios": found}


def run_child(call: list[Any]) -> None:
    """Be one of the peers."""
    turns = Turns()
    kind, steps, cohort, *rest = call
    if kind == "engine":
        run_rounds(turns, cnn_federation(steps, cohort, engine=rest[0], workers=rest[1]))
    elif kind == "plain":
        run_plain(turns, steps, cohort, first=rest[0])
    else:
        from flower_cnn import run_stock

        run_stock(turns, steps, cohort, workers=rest[0], rounds=rest[1])


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=30, help="counted rounds of every peer")
    parser.add_argument("--steps", default="5,20", help="local steps, multiples of 5")
    parser.add_argument("--cores", type=int, default=2, help="workers of every peer; divides 10")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(json.loads(options.child))
        return
    found: dict[str, Any] = {"cores": os.cpu_count(), "used": options.cores, "evaluation": "off"}
    for steps in map(int, options.steps.split(",")):
        found[f"{steps} steps"] = measure(steps, options.turns, options.cores)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
