"""fedlt's side of the benchmarks with peers: a part of CIFAR-10, and rounds taken in turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.config import Config
from fedlt.data import Dataset, load_dataset
from fedlt.federation import prepare_parties
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from turns import Turns

    from fedlt.federation import Parties


def cifar10_part(per_class: int) -> Dataset:
    """Return CIFAR-10 with the first ``per_class`` training images of each class."""
    whole = load_dataset("cifar10")
    chosen = np.concatenate(
        [np.flatnonzero(whole.train_labels == label)[:per_class] for label in range(10)]
    )
    return replace(
        whole, train_images=whole.train_images[chosen], train_labels=whole.train_labels[chosen]
    )


def make_federation(
    settings: Mapping[str, Any], *, clients: int, images: int, engine: str = "serial", workers: int
) -> Parties:
    """Return a federation of ``clients`` clients with ``images`` CIFAR-10 images each."""
    config = Config.model_validate(
        {
            "name": "peers",
            "data": {
                "dataset": f"{Path(__file__).resolve()}:cifar10_part",
                "options": {"per_class": clients * images // 10},
            },
            "partition": {"scheme": "iid", "num_clients": clients},
            "engine": {"name": engine, "workers": workers},
            "rounds": 10**6,
            **settings,
        }
    )
    return prepare_parties(config, resolve_strategy(config), resolve_client(config))


def run_rounds(turns: Turns, federation: Parties) -> None:
    """Take turns of one round, without evaluation and checkpoints, on the engine it names."""
    from fedlt.engines import engine_class
    from fedlt.flower.server_half import make_server_half
    from fedlt.realigning.drive import play_round

    prepare_process()
    server = make_server_half(federation.view)
    with engine_class(federation.view.config.engine.name)(federation) as engine:
        parameters = sum(parameter.numel() for parameter in server.model.parameters())
        more = turns.next(parameters=parameters)
        while more:
            engine.commit(play_round(server, engine, server.state.round + 1).used)
            more = turns.next()
