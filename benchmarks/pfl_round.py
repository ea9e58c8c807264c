"""Seconds a round of pfl-research's own CIFAR-10 benchmark: pfl and fedlt.

The benchmark's settings cut down from 1,000 users to 100 and from a cohort of 50 to 10: 50 images a
user, drawn at random, one epoch in batches of 10 (5 steps), learning rate 0.1, SGD with learning
rate 1 on the server, which is plain averaging, no augmentation, and its small CNN of 1.63 M
parameters with dropout (simple_cnn.py, named in fedlt's file as a user would). One torch thread a
process, no evaluation in any peer after round 1:

    pfl       pfl's SimulatedBackend in one process (pfl_peer.py): how it runs on one machine
    pfl on all cores    the same in one process a core, which pfl joins by PFL_WORKER_ADDRESSES
    serial    fedlt's serial engine: one process
    ray       fedlt's Ray engine, one worker a core

    pip install "pfl[pytorch]"
    FEDLT_DATA=... python benchmarks/pfl_round.py [--turns 30] [--cores 2] [--pfl-python PATH]

takes about 3 minutes on 2 idle cores and prints one JSON object. All peers are up at the same time
and take turns of one round. Both spend nearly all of it in the same convolutions: expect about 1.0
for pfl/serial, and pfl/ray at nearly the number of cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fedlt_peer import make_federation, run_rounds
from turns import Peer, Turns, alternate, ratios, spread

if TYPE_CHECKING:
    from fedlt.federation import Parties

USERS, COHORT, IMAGES, BATCH, LR = 100, 10, 50, 10, 0.1
WARM_UP = 3  # rounds that are not counted
FOLDER = Path(__file__).resolve().parent
RATIOS = {
    "pfl/serial": ("pfl", "serial"),
    "pfl/ray": ("pfl", "ray"),
    "pfl on all cores/ray": ("pfl on all cores", "ray"),
}


def pfl_federation(engine: str, workers: int) -> Parties:
    """Return fedlt's side of the benchmark."""
    model = {"name": f"{FOLDER / 'simple_cnn.py'}:SimpleCnn"}
    local = {"epochs": 1, "batch_size": BATCH, "lr": LR}
    settings = {"model": model, "local": local, "clients_per_round": COHORT}
    return make_federation(settings, clients=USERS, images=IMAGES, engine=engine, workers=workers)


def save_users(path: Path) -> None:
    """Write fedlt's images, normalised, and its partition for pfl."""
    data = pfl_federation("serial", 1).observer.data
    images = np.moveaxis(data.train_images, 1, -1) / np.float32(255)  # (N, H, W, Ch)
    images = (images - np.float32(data.mean)) / np.float32(data.std)
    np.savez(path, images=images, labels=data.train_labels, users=np.stack(data.partition.clients))


def require_pfl(python: str) -> None:
    """End with one line where the interpreter has no pfl."""
    check = "from importlib import util; raise SystemExit(not util.find_spec('pfl'))"
    if subprocess.run([python, "-c", check], check=False).returncode:
        print(
            f"pfl_round: {python} has no package pfl: pip install 'pfl[pytorch]' there, "
            "or name another interpreter with --pfl-python",
            file=sys.stderr,
        )
        raise SystemExit(2)


def pfl_team(python: str, data: Path, processes: int, rounds: int) -> list[Peer]:
    """Start pfl in one process, or in several that share every cohort."""
    command = (FOLDER / "pfl_peer.py", data, COHORT, BATCH, LR, rounds)
    if processes == 1:
        return [Peer(command, python=python)]
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(processes))
    return [
        Peer(
            command,
            python=python,
            environment={"PFL_WORKER_ADDRESSES": addresses, "PFL_WORKER_RANK": str(rank)},
        )
        for rank in range(processes)
    ]


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def measure(python: str, turns: int, cores: int) -> dict[str, Any]:
    """Let all peers take turns; return seconds a round and their ratios."""
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()), "users.npz")
        save_users(data)
        rounds = WARM_UP + turns
        teams = {
            "pfl": pfl_team(python, data, 1, rounds),
            "pfl on all cores": pfl_team(python, data, cores, rounds),
            "serial": [Peer([__file__, "--child", "serial", "--cores", 1])],
            "ray": [Peer([__file__, "--child", "ray", "--cores", cores])],
        }
        peers = [stack.enter_context(peer) for team in teams.values() for peer in team]
        for peer in peers:
            peer.wait()
        seconds = alternate(teams, turns, warm_up=WARM_UP)
    return {
        "parameters": {name: team[0].facts["parameters"] for name, team in teams.items()},
        "seconds_a_round": {name: spread(values) for name, values in seconds.items()},
        "ratios": {name: ratios(seconds[a], seconds[b]) for name, (a, b) in RATIOS.items()},
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=30, help="counted rounds of every peer")
    parser.add_argument("--cores", type=int, default=2, help="workers of the peers that have many")
    parser.add_argument("--pfl-python", default=sys.executable, help="an interpreter that has pfl")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_rounds(Turns(), pfl_federation(options.child, options.cores))
        return
    require_pfl(options.pfl_python)
    found = measure(options.pfl_python, options.turns, options.cores)
    print(json.dumps({"cores": os.cpu_count(), "used": options.cores, **found}, indent=1))


if __name__ == "__main__":
    main()
