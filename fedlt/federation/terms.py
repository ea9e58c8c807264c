"""The terms of a run: configuration, method and sizes, which every party knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedlt.config.cohort import cohort_size
from fedlt.models import Model, build_model
from fedlt.models.batchnorm import accept_single_values, apply_policy
from fedlt.models.freezing import freeze
from fedlt.models.weights import StartWeights
from fedlt.rng import key, seed_torch

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.strategy import Strategy


@dataclass(frozen=True, eq=False)
class Terms:
    """Configuration, method and sizes: the same for server, clients and observer. Picklable."""

    config: Config
    strategy: Strategy  # for a stock Flower strategy: the defaults, which are FedAvg's client half
    plugin: ClientPlugin
    num_classes: int  # C
    image_shape: tuple[int, int, int]  # (Ch, H, W)
    num_clients: int  # K, the population
    start: StartWeights | None = field(default=None, kw_only=True)  # of `model.weights`

    @property
    def cohort_size(self) -> int:
        """The number of clients that a round asks."""
        return cohort_size(self.config.clients_per_round, self.num_clients)

    @property
    def seed(self) -> int:
        """Keys every draw but the partition's: ``seed``, or another for each ``rng_salt``."""
        config = self.config
        return key(config.seed, "salt", config.rng_salt) if config.rng_salt else config.seed

    @property
    def tunes(self) -> bool:
        """True if a personal model is trained just before scoring: ``adapt`` or ``refresh``."""
        return self.strategy.adapt_epochs > 0 or self.config.personal.refresh.epochs > 0

    def build_model(self) -> Model:
        """Return the initial model: backbone, the plugin's parts, then the strategy's heads."""
        model = build_model(
            **self.config.model.network(),
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            seed=self.seed,
        )
        filled = set() if self.start is None else self.start.fill_backbone(model)
        seed_torch(self.seed, "plugin parts")
        self.plugin.build(model)
        seed_torch(self.seed, "heads")
        self.strategy.build(model)
        if self.start is not None:
            self.start.fill_rest(model, filled)
        freeze(model, self.config.model.freeze)
        model.reads_features = self.config.model.cache_features
        apply_policy(model, self.config.batchnorm)
        accept_single_values(model)
        return model
