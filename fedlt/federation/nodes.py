"""A federation whose images stay where they are: the parties of a node, and of the server.

A node reads its client's share, and test images of its own, from a folder or file that only it has.
The server has no image of a client: it knows the classes and the shape of images from the file, how
many images each node has, and what the file lets it ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.config.paths import data_paths, is_path
from fedlt.data import FederatedData, load_dataset
from fedlt.data.arrays import IntArray
from fedlt.data.federated import IMAGENET
from fedlt.data.partition import Partition, labels_hash
from fedlt.data.shots import ShotGroups, groups_note, shot_groups
from fedlt.errors import FedltError, shortened
from fedlt.evaluation.local_test import LocalTest, local_test
from fedlt.federation.observer import Observer
from fedlt.federation.parties import Parties, check_method, prepare_parties, with_start
from fedlt.federation.view import AllCounts, no_counts
from fedlt.machine.array_digests import array_digest

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.data import Dataset
    from fedlt.evaluation import Metric
    from fedlt.strategy import Strategy

# Metrics that a server cannot cut from totals over all classes.
_BY_CLASS = ("personal/balanced", "personal/mass_lost", "personal/few_owners",
             "personal/gain_few_owners", "personal/gain_others")  # fmt: skip
MAJORITY = "personal/majority_guess"


def check_nodes(config: Config, strategy: Strategy, plugin: ClientPlugin) -> None:
    """Refuse what needs more than a server without images, and nodes with theirs, can do.

    Raises:
        FedltError: With the key or the method, and the reason.
    """
    if config.deployment.data != "nodes":
        return
    from fedlt.client import ClientPlugin as Base

    data, name = config.data, config.client.label
    plain = type(config.partition)(num_clients=config.partition.num_clients)
    reasons = {
        "data.options.classes: is missing; nodes and server must number the classes alike": (
            "classes" not in data.options
        ),
        "data: the long tail of nodes is their own; leave imbalance_factor, profile, split and "
        "class_order out": (
            (data.imbalance_factor, data.profile, data.split, data.class_order)
            != (1, "exponential", "final", "natural")
        ),
        "partition: the nodes are the partition; give num_clients alone": (
            config.partition != plain
        ),
        f"prior.source: {config.prior.source} is for simulations; with deployment.data: nodes take "
        "own or sum": config.prior.source in ("secure_sum", "oracle"),
        "faults: are injected in simulations only": config.faults.is_active,
        "diagnostics: read clients' images; they are for simulations": (
            config.diagnostics.every is not None
        ),
        "model.cache_features: is for simulations": config.model.cache_features,
        "privacy.mechanism: sample counts the images of every client, which nodes keep; take "
        "central or local": config.privacy is not None and config.privacy.mechanism == "sample",
        f"strategy {config.strategy.name!r}: trains on everybody's images, which no node has": (
            strategy.traits.pools
        ),
        f"client {name!r}: prepares on the images of all clients before the first round, which no "
        "node has": any(type(part).prepare is not Base.prepare for part in plugin.parts),
        f"evaluate.local_test: {config.evaluate.local_test} needs a test set that all clients "
        "share; leave it out: nodes score on images of their own": (
            config.evaluate.local_test not in ("exact", "own")
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise FedltError(reason)


def node_parties(
    config: Config, strategy: Strategy, plugin: ClientPlugin, cid: int, place: str
) -> Parties:
    """Return the parties of a node: its client's share, and its own test images to score on.

    Args:
        config: The run.
        strategy: Its strategy.
        plugin: Its client plugin.
        cid: The node's client.
        place: The folder or file of the node's images.

    Raises:
        FedltError: If the run is not for nodes, or the images cannot be read or are of another
            shape.
    """
    check_nodes(config, strategy, plugin)
    clients = config.partition.num_clients
    if not 0 <= cid < clients:
        raise FedltError(f"partition-id={cid}, but the run has clients 0 to {clients - 1}")
    source = _read(config, place)
    shape = _shape(config)
    if source.image_shape != shape:
        raise FedltError(
            f"{place}: images are {list(source.image_shape)}, deployment.image_shape says "
            f"{list(shape)}"
        )
    empty = np.empty(0, np.int64)
    shares = [np.arange(len(source.train_labels)) if k == cid else empty for k in range(clients)]
    partition = Partition(shares, source.num_classes, labels_hash(source.train_labels))  # type: ignore[arg-type]
    counts = partition.counts(source.train_labels)
    data = FederatedData(
        **_common(config, source.num_classes, source.class_names),
        train_images=source.train_images,
        train_labels=source.train_labels,
        eval_images=source.test_images,
        eval_labels=source.test_labels,
        pool_indices=np.arange(len(source.train_labels)),
        pool_counts=counts.sum(axis=0),
        partition=partition,
        class_counts=counts.sum(axis=0),
        client_counts=counts,
        eval_clients=np.full(len(source.test_labels), cid),
    )
    own = config.evaluate.model_copy(update={"local_test": "own"})
    return prepare_parties(config.model_copy(update={"evaluate": own}), strategy, plugin, data=data)


def node_facts(parties: Parties, cid: int) -> dict[str, str | int | list[int]]:
    """Return what a node says of its images: sizes, a digest, and counts if the file asks.

    ``majority`` is the number of own test images of the client's largest class.
    """
    data, config = parties.observer.data, parties.view.config
    counts = data.client_counts[cid]
    tests = np.bincount(data.eval_labels, minlength=data.num_classes)
    largest = int(np.where(tests > 0, counts, 0).argmax())
    arrays = (data.train_images, data.train_labels, data.eval_images, data.eval_labels)
    facts: dict[str, str | int | list[int]] = {
        "images": len(data.train_labels),
        "test-images": len(data.eval_labels),
        "majority": int(tests[largest]),
        "data": " ".join(array_digest(array) for array in arrays),
    }
    if config.deployment.answers == "per_class":
        facts["test-counts"] = tests.tolist()
    if config.deployment.answers == "per_class" or config.prior.source == "sum":
        facts["counts"] = counts.tolist()
    return facts


def server_parties(
    config: Config,
    strategy: Strategy,
    plugin: ClientPlugin,
    told: Mapping[int, Mapping[str, Any]],
) -> Parties:
    """Return the parties of a server without images: its view, stand-ins, what it may observe.

    The shares hold images of noise, on which a method is rehearsed.

    Args:
        config: The run.
        strategy: Its strategy.
        plugin: Its client plugin.
        told: cid -> :func:`node_facts` of every client.

    Raises:
        FedltError: If the run is not for nodes, or the public test set does not fit.
    """
    check_nodes(config, strategy, plugin)
    check_method(config, strategy, plugin)
    clients = range(config.partition.num_clients)
    names = tuple(map(str, config.data.options["classes"]))
    sizes = np.array([int(told[cid]["images"]) for cid in clients])
    classes, by_class = len(names), config.deployment.answers == "per_class"
    counts = _told(told, "counts", clients, classes)
    ends = np.cumsum(sizes)
    rows = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    labels = np.zeros(int(ends[-1]), np.int64)  # not known: a partition of sizes
    partition = Partition(rows, classes, labels_hash(labels))  # type: ignore[arg-type]
    images, tested = _public_test(config, names)
    data = FederatedData(
        **_common(config, classes, names),
        train_images=images[:0],
        train_labels=labels[:0],
        eval_images=images,
        eval_labels=tested,
        pool_indices=labels[:0],
        pool_counts=np.zeros(classes, np.int64),
        partition=partition,
        class_counts=counts.sum(axis=0),
        client_counts=counts if by_class else np.zeros_like(counts),
    )
    parties = Parties.of(config, strategy, plugin, _stand_in(data, len(clients)))
    tests = np.array([int(told[cid]["test-images"]) for cid in clients])
    observer = NodesObserver(
        config,
        strategy,
        plugin,
        classes,
        data.image_shape,
        len(clients),
        data=data,
        sizes=sizes,
        tests=tests,
        majority=np.array([int(told[cid]["majority"]) for cid in clients]),
        own_counts=_told(told, "test-counts", clients, classes) if by_class else None,
    )
    is_summed = config.prior.source == "sum"
    view = replace(
        parties.view,
        ask_counts=AllCounts(data.class_counts) if is_summed else no_counts,
        sizes=sizes if config.sampling == "by_size" else None,
    )
    return with_start(Parties(view, parties.shares, observer))


@dataclass(frozen=True, eq=False)
class NodesObserver(Observer):
    """Observer at the server of a deployment: a public test set, and the counts that nodes told."""

    sizes: IntArray = field(kw_only=True)  # (K,) training images
    tests: IntArray = field(kw_only=True)  # (K,) test images of the nodes' own
    majority: IntArray = field(kw_only=True)  # (K,) of these, of the client's largest class
    own_counts: IntArray | None = field(kw_only=True)  # (K, C) of these, by class; None: totals

    @cached_property
    def shots(self) -> ShotGroups:
        """The groups of classes: given, or by the class counts if nodes tell them."""
        evaluate, counts = self.config.evaluate, self.data.class_counts
        lists = evaluate.shot_classes.model_dump() if evaluate.shot_classes else None
        if lists is None and not counts.any():
            return ShotGroups("none")
        return shot_groups(counts, scheme=evaluate.shots, given=lists)

    @cached_property
    def local_test(self) -> LocalTest:
        """The view of the nodes' own test images; of totals, all classes are one."""
        if self.own_counts is not None:
            tested = self.own_counts.sum(axis=0)
            return local_test(
                self.data.client_counts, tested, scheme="own", own_counts=self.own_counts
            )
        sizes, tests = self.sizes[:, None], self.tests[:, None]
        return local_test(sizes, tests.sum(axis=0), scheme="own", own_counts=tests)

    @property
    def personal_shots(self) -> ShotGroups:
        """The groups in the personal view: none without hits by class."""
        return ShotGroups("none") if self.own_counts is None else self.shots

    def as_known(self, metrics: dict[str, Metric], cids: IntArray) -> dict[str, Metric]:
        """Return personal metrics without those that need hits by class."""
        if self.own_counts is not None:
            return metrics
        tests = self.tests[cids]
        known = tests > 0
        guessed = (self.majority[cids][known] / tests[known]).mean() if known.any() else None
        unknown = dict.fromkeys(_BY_CLASS, None)
        return {name: value if name not in unknown else None for name, value in metrics.items()} | {
            MAJORITY: None if guessed is None else float(guessed)
        }

    def notes(self) -> list[str]:
        """Return the lines that a user should read before the run."""
        test = self.config.deployment.test
        lines = [
            f"{self.num_clients} nodes with {int(self.sizes.sum()):,} training images and "
            f"{int(self.tests.sum()):,} test images of their own",
            "no public test set (deployment.test): the generic model is scored at the nodes only"
            if test is None
            else f"public test set: {len(self.data.eval_labels):,} images",
        ]
        if self.data.class_counts.any():
            lines.append(groups_note(self.shots, self.data.class_counts))
        lines.append(self.strategy.note(self.plugin))
        lines += self.start.lines if self.start is not None else []
        lines += [part.note(self.config) for part in self.plugin.parts]
        return [line for line in lines if line]


def _told(
    told: Mapping[int, Mapping[str, Any]], name: str, clients: range, classes: int
) -> IntArray:
    """Return counts by client and class (K, C) as nodes told them; zeros where they do not."""
    nothing = [0] * classes
    return np.array([list(told[cid].get(name, nothing)) for cid in clients], np.int64)


def _shape(config: Config) -> tuple[int, int, int]:
    assert config.deployment.image_shape is not None
    channels, height, width = config.deployment.image_shape
    return channels, height, width


def _common(config: Config, classes: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of the data that nodes and server have in common."""
    channels, rules = _shape(config)[0], config.deployment
    mean, std = rules.mean or [0.5] * channels, rules.std or [0.5] * channels
    if config.data.normalisation == "imagenet":
        if channels != len(IMAGENET[0]):
            raise FedltError("data.normalisation: imagenet is for images of 3 channels")
        mean, std = list(IMAGENET[0]), list(IMAGENET[1])
    return {
        "name": config.data.dataset,
        "num_classes": classes,
        "mean": tuple(mean),
        "std": tuple(std),
        "class_names": names,
        "split": "final",
    }


def _read(config: Config, place: str) -> Dataset:
    """Return a node's images, read as ``data`` says, from the place that only the node knows.

    A file that the experiment names is looked for by its name in the node's folder.
    """
    data, home = config.data, Path(place).expanduser()
    if not home.exists():
        raise FedltError(f"data={place!r}: no such folder or file")
    options = dict(data.options)
    paths = {key.rpartition(".")[2] for key in data_paths(data.dataset)}
    paths |= {name for name in options if is_path(f"data.options.{name}")}
    for name in paths & set(options):
        options[name] = str(home / Path(str(options[name])).name)
    if data.dataset == "folder" or home.is_file():
        options["path"] = str(home)
    if "root" in options:
        options["root"] = str(home)
    return load_dataset(data.dataset, root=data.root, options=options)


def _public_test(config: Config, names: tuple[str, ...]) -> tuple[Any, IntArray]:
    """Return images (M, Ch, H, W) and labels (M,) of the public test set; M is 0 without one."""
    test, shape = config.deployment.test, _shape(config)
    if test is None:
        return np.zeros((0, *shape), np.uint8), np.zeros(0, np.int64)
    source = load_dataset(test.dataset, root=test.root, options=test.options)
    if source.image_shape != shape:
        raise FedltError(
            f"deployment.test: images are {list(source.image_shape)}, "
            f"deployment.image_shape says {list(shape)}"
        )
    place = {name: number for number, name in enumerate(names)}
    for name in source.class_names:
        if name not in place:
            raise FedltError(
                f"deployment.test: class {shortened(name)!r} is not one of data.options.classes"
            )
    numbers = np.array([place[name] for name in source.class_names])
    return source.test_images, numbers[source.test_labels]


def _stand_in(data: FederatedData, clients: int) -> FederatedData:
    """Return data of which client 0 has two images of noise of each class."""
    labels = np.tile(np.arange(data.num_classes), 2)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (len(labels), *data.image_shape), np.uint8)
    rows = [np.arange(len(labels)), *[np.empty(0, np.int64)] * (clients - 1)]
    partition = Partition(rows, data.num_classes, labels_hash(labels))  # type: ignore[arg-type]
    return replace(
        data,
        train_images=images,
        train_labels=labels,
        partition=partition,
        client_counts=partition.counts(labels),
        eval_images=images[:2],
        eval_labels=labels[:2],
    )
