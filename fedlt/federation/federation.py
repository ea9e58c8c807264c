"""A federation: configuration, data, strategy, plugin: what a process needs to take part."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from fedlt.config.raised import users_code
from fedlt.data import FederatedData, prepare_data
from fedlt.data.dataset import read_only
from fedlt.data.preparation import Preparation
from fedlt.data.shots import ShotGroups, groups_note, shot_groups
from fedlt.errors import FedltError
from fedlt.evaluation.headline import ScoredSet
from fedlt.evaluation.local_test import REFERENCE_WARNING
from fedlt.models import Model, build_model
from fedlt.models.batchnorm import accept_single_values, apply_policy
from fedlt.progress import Progress
from fedlt.rng import key, seed_torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.progress import Progress
    from fedlt.strategy import Strategy


@dataclass(frozen=True)
class Federation:
    """What the server and every worker share. Picklable; images travel as NumPy arrays."""

    config: Config
    data: FederatedData
    strategy: Strategy  # for a stock Flower strategy: the defaults, which are FedAvg's client half
    plugin: ClientPlugin
    material: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)  # of plugin.prepare

    @property
    def num_clients(self) -> int:
        """The number of clients in the population."""
        return self.data.partition.num_clients

    @property
    def cohort_size(self) -> int:
        """The number of clients that a round asks."""
        return self.config.clients_per_round or self.num_clients

    @property
    def seed(self) -> int:
        """Keys every draw but the partition's: ``seed``, or another for each ``rng_salt``."""
        config = self.config
        return key(config.seed, "salt", config.rng_salt) if config.rng_salt else config.seed

    @cached_property
    def shots(self) -> ShotGroups:
        """The groups of classes, from the global training counts; fixed for the run."""
        evaluate = self.config.evaluate
        lists = evaluate.shot_classes.model_dump() if evaluate.shot_classes else None
        return shot_groups(self.data.class_counts, scheme=evaluate.shots, given=lists)

    def notes(self) -> list[str]:
        """Return what a user should know before the run, a line each."""
        data = self.data
        scored_on = ScoredSet.of(data.eval_labels, data.num_classes, data.split)
        lines = [groups_note(self.shots, data.class_counts), self.strategy.note(self.plugin)]
        lines += [data.note(), scored_on.note(data.class_names)]
        lines += [part.note(self.config) for part in self.plugin.parts]
        single = int(((self.data.client_counts > 0).sum(axis=1) == 1).sum())
        masked = self.plugin.masks_absent and self.config.prior.use == "local_masked"
        if single and masked and not self.strategy.pools:
            lines.append(
                f"{single} of {self.num_clients} clients hold a single class: with prior.use "
                f"local_masked the shifted loss of {self.config.client.label} is 0 there"
            )
        return [line for line in lines if line]

    def setting(self, progress: Progress | None = None) -> Preparation:
        """Return what the plugin prepares from."""
        return Preparation(
            self.config, self.data, self.seed, self.strategy.pools, progress or Progress()
        )

    def build_model(self) -> Model:
        """Return the initial model: backbone, the plugin's parts, then the strategy's heads."""
        data, settings = self.data, self.config.model
        channels, *image_size = data.train_images.shape[1:]
        model = build_model(
            settings.name,
            in_channels=channels,
            image_size=image_size[0],
            num_classes=data.num_classes,
            width=settings.width,
            norm=settings.norm,
            seed=self.seed,
        )
        seed_torch(self.seed, "plugin parts")
        self.plugin.build(model)
        seed_torch(self.seed, "heads")
        self.strategy.build(model)
        apply_policy(model, self.config.batchnorm)
        accept_single_values(model)
        return model


def prepare_federation(
    config: Config,
    strategy: Strategy,
    plugin: ClientPlugin,
    *,
    progress: Progress | None = None,
) -> Federation:
    """Load the data, draw the partition, and make what the plugin wants made before a run.

    Args:
        config: The run.
        strategy: Its strategy.
        plugin: Its client plugin.
        progress: Is told how far the plugin is; silent by default.

    Raises:
        FedltError: If strategy and plugin do not compose, the data cannot be had, the partition
            has too few clients for what the file asks, or the plugin cannot be prepared.
    """
    reason = strategy.refuses(plugin)
    if reason is not None:
        names = f"strategy {config.strategy.name!r} with client {config.client.label!r}"
        raise FedltError(f"{names}: {reason}")
    if strategy.needs_sgd and config.local.optimizer != "sgd":
        raise FedltError(
            f"local.optimizer: strategy {config.strategy.name!r} needs sgd, not "
            f"{config.local.optimizer}: it reads mean gradients off the steps"
        )
    if strategy.pools:
        _check_pooled(config)
    if plugin.needs_global_prior and config.prior.source == "own":
        raise FedltError(
            f"client {config.client.label!r} needs the class mix of all clients: set prior.use to "
            "global (or mix) and prior.source to secure_sum or oracle"
        )
    data = prepare_data(config.data, config.partition, seed=config.seed)
    clients, cohort = data.partition.num_clients, config.clients_per_round
    if cohort is not None and cohort > clients:
        raise FedltError(f"clients_per_round: {cohort} exceeds the {clients} clients")
    if config.prior.source == "secure_sum":
        _check_secure_sum(strategy, cohort or clients)
    if config.evaluate.local_test == "reference":
        logging.getLogger(__name__).warning(REFERENCE_WARNING)
    bare = Federation(config, data, strategy, plugin)
    _ = bare.shots  # refuses groups that do not fit the data
    with users_code(f"client {config.client.label!r}: prepare fails"):
        material = plugin.prepare(bare.setting(progress))
    return replace(bare, material={n: read_only(array) for n, array in material.items()})


def _check_pooled(config: Config) -> None:
    """Refuse what has no meaning where no client takes part."""
    asked = [("batchnorm: local", config.batchnorm == "local"), ("faults", config.faults.is_set)]
    for what, is_set in asked:
        if is_set:
            raise FedltError(
                f"{what}: needs clients; strategy {config.strategy.name!r} trains one model on "
                "everybody's images"
            )


def _check_secure_sum(strategy: Strategy, cohort: int) -> None:
    """A secure sum hides single updates, so nothing may need one and there must be several."""
    if cohort < 2:
        raise FedltError(
            f"prior.source: secure_sum needs at least 2 clients per round, not {cohort}"
        )
    if not strategy.reduces:
        name = type(strategy).__name__
        raise FedltError(f"prior.source: secure_sum hides the single updates that {name} reads")
