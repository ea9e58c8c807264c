"""Actors that stay up between the runs of one process: a new actor needs seconds for imports.

An actor is reused where a new actor would be the same: on the same local Ray, with the same share
of a GPU, the same import path, and the same user code, by the contents of its files. The
environment of an actor is the environment in which Ray has started. Actors that do not fit a new
run are ended before that run begins. On a cluster, where other users wait for places, and after an
error or Ctrl-C, actors end with their run.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import exceptions

SILENCE = 20.0  # seconds after which an actor without a run counts as hung; a start takes 4 to 10


@dataclass
class Crew:
    """Actors without a run."""

    idle: list[tuple[Hashable, Any]] = field(default_factory=list)  # kind and actor

    def add(self, kind: Hashable, actor: Any) -> None:  # noqa: ANN401 (Ray handles have no types)
        """Keep an actor of a finished run; actors of equal ``kind`` may replace each other."""
        actor.rest.remote()
        self.idle.append((kind, actor))

    def take(self, kind: Hashable, number: int) -> list[Any]:
        """Return up to ``number`` responsive actors of ``kind``; end all other actors."""
        asked = {actor.rest.remote(): actor for found, actor in self.idle if found == kind}
        rested = ray.wait([*asked], num_returns=len(asked), timeout=SILENCE)[0] if asked else []
        fit = [asked[reference] for reference in rested if _is_done(reference)][:number]
        for _, actor in self.idle:
            if actor not in fit:
                ray.kill(actor)
        self.idle.clear()
        return fit


def _is_done(reference: Any) -> bool:  # noqa: ANN401 (Ray references have no types)
    try:
        ray.get(reference)
    except exceptions.RayError:
        return False
    return True
