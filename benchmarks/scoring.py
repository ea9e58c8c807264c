"""Milliseconds to score the personal models of 100 clients, against bare forward passes.

100 clients, one round of FedPer and of Ditto, then the evaluation of every client's model on the
same test images, serial engine, one thread. The model is ``cnn`` of width 16 on synthetic images of
3 x 32 x 32 in 10 classes.

    fedlt     the evaluator's whole work: requests, models in and out, both views, hits by class
              under both masks, metrics
    bare      the same models in a plain loop: weights in, forward passes in the same blocks, argmax
    shared    FedPer's bare loop with one pass of the backbone that all clients share

    python benchmarks/scoring.py [--turns 5] [--images 500]

takes about 2 minutes on one core and prints one JSON object. The variants take turns; ``ratio`` is
the median over the turns of fedlt / bare (aim: at most 1.15). ``equal_hits``: the hits of the bare
loop are those of fedlt, client by client.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlt.config import Config
from fedlt.data.augment import normalize
from fedlt.engines.serial import SerialEngine
from fedlt.evaluation.scores import PersonalScores
from fedlt.federation import Parties, prepare_parties
from fedlt.federation.evaluator import Evaluator, Standing
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.realigning.drive import play_round
from fedlt.worker.worker import prepare_process

CLIENTS, CLASSES = 100, 10
GENERIC = {"fedper": "average", "ditto": "shared"}


def make_federation(strategy: str, images: int) -> Parties:
    """Return 100 clients with a few images each, and the test images."""
    options = {
        "channels": 3,
        "image_size": 32,
        "train_per_class": 4 * CLIENTS // CLASSES,
        "test_per_class": images // CLASSES,
    }
    config = Config.model_validate(
        {
            "name": "scoring",
            "data": {"dataset": "synthetic", "options": options},
            "partition": {"scheme": "iid", "num_clients": CLIENTS},
            "model": {"name": "cnn", "width": 16},
            "strategy": {"name": strategy},
            "engine": {"name": "serial"},
            "rounds": 1,
        }
    )
    return prepare_parties(config, resolve_strategy(config), resolve_client(config))


class Bare:
    """Plain forward passes of all clients' models."""

    def __init__(self, parties: Parties, standing: Standing) -> None:
        view, data = parties.view, parties.observer.data
        self.model = view.build_model().eval()
        self.block = view.config.evaluate.batch_size
        self._state = self.model.state()
        self._models = {
            cid: {
                **standing.broadcast,
                **view.strategy.personal_weights(self.model, standing.broadcast, personal),
            }
            for cid, personal in standing.personal.items()
        }
        self._images = torch.from_numpy(data.eval_images.copy())
        self._labels = torch.from_numpy(data.eval_labels.copy())
        self._scale = torch.tensor(data.mean), torch.tensor(data.std)

    @torch.no_grad()
    def _features(self) -> list[Tensor]:
        blocks = self._images.split(self.block)
        return [self.model.features(normalize(block, *self._scale)) for block in blocks]

    @torch.no_grad()
    def score(self, *, shared: bool) -> list[list[int]]:
        """Return the hits (clients, C); with ``shared`` the backbone runs once."""
        hits, kept = [], None
        for weights in self._models.values():
            for name, tensor in self._state.items():
                tensor.copy_(weights[name])
            if kept is None or not shared:
                kept = self._features()
            (head,) = self.model.heads.values()
            found = torch.cat([head(block)[:, 0].argmax(dim=1) for block in kept])
            right = self._labels[found == self._labels]
            hits.append(torch.bincount(right, minlength=CLASSES).tolist())
        return hits


def measure(strategy: str, images: int, turns: int) -> dict[str, Any]:
    """Return milliseconds by variant, and the ratios turn by turn."""
    parties = make_federation(strategy, images)
    server = make_server_half(parties.view)
    with SerialEngine(parties) as engine:
        engine.commit(play_round(server, engine, 1).used)
        standing = Standing(
            round=1,
            broadcast=server.state.broadcast,
            fixed=server.state.fixed,
            personal=engine.states(),
            participated=np.ones(CLIENTS, dtype=np.bool_),
            steps=np.ones(CLIENTS, dtype=np.int64),
            global_counts=None,
        )
        evaluator = Evaluator(parties.observer, server.model, GENERIC[strategy])
        bare, kept = Bare(parties, standing), []

        def evaluate() -> None:
            _, evaluation = evaluator.evaluate(
                standing, engine.run_scores, personal=True, keep_logits=False
            )
            kept.append(evaluation.personal)

        variants: dict[str, Callable[[], Any]] = {
            "fedlt": evaluate,
            "bare": lambda: bare.score(shared=False),
        }
        if strategy == "fedper":
            variants["shared"] = lambda: bare.score(shared=True)
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for turn in range(turns + 1):
            for name, call in variants.items():
                start = time.perf_counter()
                call()
                if turn:  # the first turn warms up
                    seconds[name].append(time.perf_counter() - start)
        equal = _hits(kept[-1]) == bare.score(shared=False)
    pairs = zip(seconds["fedlt"], seconds["bare"], strict=True)
    return {
        "milliseconds": {n: round(1000 * statistics.median(v), 1) for n, v in seconds.items()},
        "ratio": _spread([one / other for one, other in pairs]),
        "equal_hits": equal,
    }


def _hits(scores: PersonalScores) -> list[list[int]]:
    """Return the hits (clients, C) of the clients' primary heads, without a mask."""
    found: list[list[int]] = scores.hits[:, 0].tolist()
    return found


def _spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    prepare_process()
    found = {name: measure(name, options.images, options.turns) for name in GENERIC}
    print(json.dumps({"clients": CLIENTS, "images": options.images, **found}, indent=1))


if __name__ == "__main__":
    main()
