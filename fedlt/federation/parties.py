"""Make the parties of a simulation: load the data, draw the partition, and give each its part."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedlt.config.cohort import cohort_size
from fedlt.config.raised import users_code
from fedlt.data import FederatedData, prepare_data
from fedlt.data.arrays import read_only
from fedlt.errors import FedltError
from fedlt.evaluation.local_test import REFERENCE_WARNING
from fedlt.federation.feature_cache import cache_features
from fedlt.federation.image_checks import check_images
from fedlt.federation.observer import Observer
from fedlt.federation.private_runs import check_private
from fedlt.federation.share import ClientShares
from fedlt.federation.start import find_start
from fedlt.federation.view import AllCounts, AskCounts, SecureSum, ServerView, no_counts

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.progress import Progress
    from fedlt.strategy import Strategy


class Parties(NamedTuple):
    """The three parties of a simulation, for its driver: nobody else holds them together."""

    view: ServerView
    shares: ClientShares
    observer: Observer

    @classmethod
    def of(
        cls, config: Config, strategy: Strategy, plugin: ClientPlugin, data: FederatedData
    ) -> Parties:
        """Return the parties of a method on data; without the material of ``plugin.prepare``."""
        clients = data.partition.num_clients
        terms = (config, strategy, plugin, data.num_classes, data.image_shape, clients)
        shares = ClientShares(
            *terms,
            mean=data.mean,
            std=data.std,
            images=data.train_images,
            labels=data.train_labels,
            partition=data.partition,
            client_counts=data.client_counts,
            pooled=strategy.traits.pools,
        )
        sizes = data.client_sizes if config.sampling == "by_size" else None
        privacy = config.privacy
        images = data.client_sizes if privacy and privacy.mechanism == "sample" else None
        view = ServerView(*terms, ask_counts=_ask_counts(config, data), sizes=sizes, images=images)
        return cls(view, shares, Observer(*terms, data=data))

    def changed(self, **terms: Any) -> Parties:  # noqa: ANN401 (each as its field has it)
        """Return the parties with some terms changed: ``config``, ``strategy`` or ``plugin``."""
        view, shares, observer = self
        shares = replace(shares, **terms)
        pooled = replace(shares, pooled=shares.strategy.traits.pools)
        return Parties(replace(view, **terms), pooled, replace(observer, **terms))


def _ask_counts(config: Config, data: FederatedData) -> AskCounts:
    """Return the function by which the server learns class counts, by ``prior.source``."""
    if config.prior.source == "own":
        return no_counts
    if config.prior.source in ("sum", "oracle"):
        return AllCounts(data.class_counts)
    return SecureSum(data.client_counts)


def prepare_parties(
    config: Config,
    strategy: Strategy,
    plugin: ClientPlugin,
    *,
    progress: Progress | None = None,
    data: FederatedData | None = None,
) -> Parties:
    """Load the data, draw the partition, and let the plugin prepare its material.

    Args:
        config: The run.
        strategy: Its strategy.
        plugin: Its client plugin.
        progress: Shows how far the plugin is; silent by default.
        data: The data, where they are not those that the configuration names.

    Raises:
        FedltError: If strategy and plugin do not compose, the data cannot be had, the partition
            has too few clients for what the file asks, or the plugin cannot be prepared.
    """
    check_method(config, strategy, plugin)
    if data is None:
        data = prepare_data(config.data, config.partition, seed=config.seed)
    _check_data(config, strategy, data)
    check_images(config, plugin, data)
    parties = Parties.of(config, strategy, plugin, data)
    # Both refuse what does not fit the data.
    _ = parties.observer.shots, parties.observer.local_test
    parties = with_start(parties)
    with users_code(f"client {config.client.label!r}: prepare fails"):
        made = plugin.prepare(parties.observer.preparation(progress))
    material = {name: read_only(array) for name, array in made.items()}
    shares, observer = replace(parties.shares, material=material), parties.observer
    if config.model.cache_features:
        shares, observer = cache_features(shares, observer)
    return Parties(parties.view, shares, observer)


def with_start(parties: Parties) -> Parties:
    """Return the parties with the weights of ``model.weights``, if there are any."""
    start = find_start(parties.view)
    return parties if start is None else parties.changed(start=start)


def check_method(config: Config, strategy: Strategy, plugin: ClientPlugin) -> None:
    """Refuse a strategy and a plugin that do not fit each other or the configuration.

    Raises:
        FedltError: With the reason.
    """
    reason = strategy.refuses(plugin)
    if reason is not None:
        names = f"strategy {config.strategy.name!r} with client {config.client.label!r}"
        raise FedltError(f"{names}: {reason}")
    check_private(config, strategy, plugin)
    if strategy.traits.needs_sgd:
        _check_steps(config, strategy)
    if strategy.traits.pools:
        _check_pooled(config)
    if config.sampling == "by_size" and strategy.traits.own_weights:
        raise FedltError(
            f"sampling: strategy {config.strategy.name!r} weighs its clients itself, as drawn "
            "uniformly; by_size would weigh them twice"
        )
    if plugin.traits.needs_global_prior and config.prior.source == "own":
        raise FedltError(
            f"client {config.client.label!r} needs the class mix of all clients: set prior.use to "
            "global (or mix) and prior.source to sum, secure_sum or oracle"
        )


def _check_data(config: Config, strategy: Strategy, data: FederatedData) -> None:
    """Refuse data without the clients or the kind of images that the file asks for."""
    clients = data.partition.num_clients
    cohort = cohort_size(config.clients_per_round, clients)
    if cohort > clients:
        raise FedltError(f"clients_per_round: {cohort} exceeds the {clients} clients")
    if config.local.augment == "imagenet" and data.train_images.dtype != np.uint8:
        raise FedltError(
            f"local.augment: imagenet needs images of 8 bits, and those of {config.data.dataset!r} "
            "are floats; take crop_flip or none"
        )
    if config.prior.source == "secure_sum":
        _check_secure_sum(strategy, cohort)
    if config.evaluate.local_test == "reference":
        logging.getLogger(__name__).warning(REFERENCE_WARNING)


def _check_steps(config: Config, strategy: Strategy) -> None:
    """Refuse steps from which a strategy cannot compute gradients."""
    local, name = config.local, config.strategy.name
    if local.optimizer != "sgd":
        raise FedltError(
            f"local.optimizer: strategy {name!r} needs sgd, not {local.optimizer}: it reads mean "
            "gradients off the steps"
        )
    for knob, is_set in (("nesterov", local.nesterov), ("clip", local.clip is not None)):
        if is_set and knob not in strategy.traits.knows:
            raise FedltError(
                f"local.{knob}: strategy {name!r} reads mean gradients off the steps, and cannot "
                f"off steps with {knob}; leave it out"
            )


def _check_pooled(config: Config) -> None:
    """Refuse settings without a meaning where no client takes part."""
    asked = [
        ("batchnorm: local", config.batchnorm == "local"),
        ("faults", config.faults.is_set),
        ("sampling: by_size", config.sampling == "by_size"),
    ]
    for what, is_set in asked:
        if is_set:
            raise FedltError(
                f"{what}: needs clients; strategy {config.strategy.name!r} trains one model on "
                "everybody's images"
            )


def _check_secure_sum(strategy: Strategy, cohort: int) -> None:
    """Refuse a secure sum with a strategy that needs single updates, or with one client."""
    if cohort < 2:
        raise FedltError(
            f"prior.source: secure_sum needs at least 2 clients per round, not {cohort}"
        )
    if not strategy.traits.reduces:
        name = type(strategy).__name__
        raise FedltError(f"prior.source: secure_sum hides the single updates that {name} reads")
