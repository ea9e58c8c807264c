"""Peers that take turns: each is a process that does one round whenever it is told to.

All peers of a benchmark are up at the same time and idle but for the one whose turn it is, so other
load on the machine meets all of them alike. A peer prints one JSON line when it is ready, reads one
line a turn, and answers it with the seconds that the turn took. This file needs no other package.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "RAY_ADDRESS": "local",  # a Ray of its own, also where another one runs
    "RAY_worker_niceness": "0",  # fedlt's own setting; peers on Ray get it, too
}


class Turns:
    """The peer's side. What else the process prints goes to its error output."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._start: float | None = None

    def next(self, **facts: object) -> bool:
        """End a turn and wait for the next; the first call says that the peer is ready.

        Args:
            facts: What to tell beside the time.

        Returns:
            Whether there is a next turn.
        """
        if self._start is not None:
            facts["seconds"] = time.perf_counter() - self._start
        self._answers.write(json.dumps(facts) + "\n")
        self._answers.flush()
        more = bool(sys.stdin.readline())
        self._start = time.perf_counter()
        return more


class Peer:
    """The benchmark's side: a process, started at once.

    Args:
        command: Arguments of the interpreter: a script and what it gets.
        python: The interpreter; this process's own by default.
        environment: Variables beside those of this process.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = " ".join(map(str, command))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the peer)
        self._process = subprocess.Popen(
            [python, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **_SETTINGS, **(environment or {})},
        )
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell the peer that there is no next turn, and wait for its end."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60 if error is None else 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def wait(self) -> None:
        """Wait until the peer is ready."""
        self.facts = self.answer()

    def begin(self) -> None:
        """Begin a turn."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            RuntimeError: If the process ended instead.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.name}: {self._errors.read()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def alternate(
    teams: Mapping[str, Sequence[Peer]], turns: int, *, warm_up: int = 3
) -> dict[str, list[float]]:
    """Let teams take turns, each time in another order; a team's peers run at the same time.

    Args:
        teams: Peers by the name of what they measure together.
        turns: Turns of each that count.
        warm_up: Turns before those.

    Returns:
        Seconds a turn by name: the mean over the team's peers.
    """
    seconds: dict[str, list[float]] = {name: [] for name in teams}
    names = list(teams)
    for turn in range(warm_up + turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            for peer in teams[name]:
                peer.begin()
            taken = [float(peer.answer()["seconds"]) for peer in teams[name]]
            if turn >= warm_up:
                seconds[name].append(statistics.mean(taken))
    return seconds


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return median, least and most."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Return median, least and most of the ratios turn by turn."""
    return spread([a / b for a, b in zip(above, below, strict=True)], 3)
