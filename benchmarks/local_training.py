"""Images a second of a client's local training, against a bare PyTorch loop.

One client, the model ``cnn`` of width 16, batches of 32, SGD with momentum, one thread. Two inputs:
3x32x32 with random crops and flips, 1x28x28 with random crops.

    fedlt         Worker.client + Worker.train: load the weights, then one epoch of FedAvg
    bare          the same model, images, batches and draws in a plain loop with torch.optim.SGD,
                  the augmentation written with plain indexing; its weights end up the same, bit by
                  bit (``same_weights``)
    fedloge       the same epoch of FedLoGe: three heads instead of one
    for_loop, foreach, fused      the bare loop with this implementation of SGD
    channels_first                the bare loop without channels_last activations

    python benchmarks/local_training.py [--pairs 30] [--images 640]

takes about 3 minutes on one core and prints one JSON object. All variants of an input take turns,
one epoch each, so that other load on the machine meets all of them alike; ``ratio`` is the median,
over the turns, of a variant's speed divided by the bare loop's. Expect fedlt at 0.9 or more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from fedlt.config import Config
from fedlt.federation import Parties, prepare_parties
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.rng import torch_generator
from fedlt.strategy import ServerState
from fedlt.worker.worker import Worker, prepare_process

INPUTS = {"crop_flip_3x32x32": (3, 32, "crop_flip"), "crop_1x28x28": (1, 28, "crop")}
LR, MOMENTUM, BATCH = 0.1, 0.5, 32


def make_federation(channels: int, size: int, augment: str, strategy: str, images: int) -> Parties:
    """Return a federation of one client with ``images`` synthetic images."""
    options = {"channels": channels, "image_size": size, "train_per_class": images // 10}
    config = Config.model_validate(
        {
            "name": "local-training",
            "data": {"dataset": "synthetic", "options": options},
            "partition": {"scheme": "iid", "num_clients": 1},
            "strategy": {"name": strategy},
            "local": {"lr": LR, "momentum": MOMENTUM, "batch_size": BATCH, "augment": augment},
            "rounds": 1,
        }
    )
    return prepare_parties(config, resolve_strategy(config), resolve_client(config))


class ClientLoop:
    """fedlt's own loop: everything that a client task does but the packing of its reply."""

    def __init__(self, federation: Parties) -> None:
        self.worker = Worker(federation.shares)
        self.state: ServerState = federation.view.strategy.init(federation.view.build_model())

    def __call__(self) -> None:
        """Load the broadcast and train one epoch."""
        state = self.state
        client = self.worker.client(0, 1, state.broadcast, fixed=state.fixed, personal={})
        self.worker.train(client)


@dataclass
class BareLoop:
    """What one would write without a framework, for the same arithmetic in the same order."""

    federation: Parties
    start: dict[str, Tensor]
    augment: str
    options: dict[str, Any]  # of torch.optim.SGD
    channels_last: bool = True

    def __post_init__(self) -> None:
        data = self.federation.observer.data
        self.model = self.federation.view.build_model()
        self.images = torch.from_numpy(data.train_images.copy())
        self.labels = torch.from_numpy(data.train_labels.copy())
        self.indices = torch.from_numpy(data.partition.clients[0].copy())
        self.scale = (1 / (255 * torch.tensor(data.std))).view(-1, 1, 1)
        self.shift = (torch.tensor(data.mean) / torch.tensor(data.std)).view(-1, 1, 1)

    def __call__(self) -> None:
        """Load the first weights and train one epoch."""
        model = self.model
        model.load_state_dict(self.start)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, **self.options)
        with self._layout():
            for images, labels in self._batches():
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(images)[:, 0], labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def _layout(self) -> contextlib.AbstractContextManager[object]:
        """Take the backbone's change of the memory layout away, where that is asked for."""
        if self.channels_last:
            return contextlib.nullcontext()
        return mock.patch("fedlt.models.cnn.channels_last_on_cpu", lambda images: images)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch_generator(self.federation.view.seed, "batches", 1, 0, 0)
        order = self.indices[torch.randperm(len(self.indices), generator=generator)]
        for chosen in order.split(BATCH):
            images = self._augment(self.images[chosen], generator).float()
            yield images * self.scale - self.shift, self.labels[chosen]

    def _augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop each image at an offset of its own after zero padding, then flip half of them."""
        count, _, height, width = images.shape
        padding = height // 8
        padded = functional.pad(images, (padding,) * 4)
        offsets = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
        rows = (offsets[0, :, None] + torch.arange(height))[:, None, :, None]  # (B, 1, H, 1)
        columns = (offsets[1, :, None] + torch.arange(width))[:, None, None, :]  # (B, 1, 1, W)
        sample = torch.arange(count)[:, None, None, None]
        channel = torch.arange(images.shape[1])[None, :, None, None]
        cropped = padded[sample, channel, rows, columns]
        if self.augment == "crop":
            return cropped
        flips = torch.randint(0, 2, (count,), generator=generator).bool()
        return torch.where(flips[:, None, None, None], cropped.flip(3), cropped)


def measure(channels: int, size: int, augment: str, images: int, pairs: int) -> dict[str, Any]:
    """Let all variants of one input take turns; return images a second and ratios."""
    fedavg = make_federation(channels, size, augment, "fedavg", images)
    fedloge = make_federation(channels, size, augment, "fedloge", images)
    client = ClientLoop(fedavg)
    start = {**client.worker.model.state_dict(), **client.state.broadcast}
    start = {name: tensor.clone() for name, tensor in start.items()}
    bare = BareLoop(fedavg, start, augment, {})
    variants: dict[str, Callable[[], None]] = {
        "bare": bare,
        "fedlt": client,
        "fedloge": ClientLoop(fedloge),
        "for_loop": BareLoop(fedavg, start, augment, {"foreach": False}),
        "foreach": BareLoop(fedavg, start, augment, {"foreach": True}),
        "fused": BareLoop(fedavg, start, augment, {"fused": True}),
        "channels_first": BareLoop(fedavg, start, augment, {}, channels_last=False),
    }
    seconds = take_turns(variants, pairs)
    trained = client.worker.model.state()
    same = all(torch.equal(trained[n], value) for n, value in bare.model.state().items())
    return {"same_weights": same, **summary(seconds, "bare", len(fedavg.data.train_labels))}


def take_turns(variants: dict[str, Callable[[], None]], turns: int) -> dict[str, list[float]]:
    """Return the seconds of every turn but the first."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]], base: str, images: int) -> dict[str, dict[str, Any]]:
    """Return, by variant, median images a second and the median ratio to the variant ``base``."""
    found = {}
    for name, own in seconds.items():
        ratios = [reference / mine for reference, mine in zip(seconds[base], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {
            "images_per_second": round(images / statistics.median(own)),
            "ratio": round(middle, 3),
            "ratio_quartiles": [round(low, 3), round(high, 3)],
        }
    return found


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30, help="turns of every variant")
    parser.add_argument("--images", type=int, default=640, help="images of the client")
    options = parser.parse_args()
    prepare_process()
    found = {name: measure(*given, options.images, options.pairs) for name, given in INPUTS.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
