"""Centralised training on the pooled data: a reference point, not a federated method.

One model sees the images of every client: an upper bound for generic models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from fedlt.config.ranges import Positive
from fedlt.strategy import Strategy, StrategyTraits, Update

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class Centralised(Strategy):
    """Reference, not federated: one model trained by SGD on the pooled images of all clients.

    By default a round makes ``local.epochs * cohort / population`` passes over all images, or
    ``local.steps * cohort`` steps: as many as a cohort would. Each round starts with a new pass and
    zero momentum. The personal model is the generic one.
    """

    traits = StrategyTraits(reference="pooled data", pools=True)
    epochs: Positive | None = None  # passes over all images in a round; may be a fraction

    def local_update(self, client: Client) -> Update:
        """Train on the pooled images for the passes of one round."""
        epochs, steps = client.local.epochs, client.local.steps
        if self.epochs is None and steps is not None:
            client.local = client.local.model_copy(update={"steps": steps * client.asked[0]})
            return client.update(client.train(self.objective))
        passes = Fraction(*client.asked) * (epochs or 1)
        if self.epochs is not None:
            passes = Fraction(str(self.epochs))
        whole = math.ceil(passes)
        if whole > passes:
            part = passes / whole * Fraction(*(client.work or (1, 1)))
            client.work = part.numerator, part.denominator
        return client.update(client.train(self.objective, epochs=whole))
