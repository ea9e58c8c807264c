"""Centralised training on the pooled data: a reference point, not a federated method.

What one model reaches that sees every client's images: the upper bound of the generic view.
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
    """A reference, not federated: SGD on everybody's images; the personal model is the same.

    A round takes ``local.epochs * cohort / population`` passes over all images by default: as many
    images as the cohort would see. Each round begins a new pass, and its momentum at zero.
    """

    traits = StrategyTraits(reference="pooled data", pools=True)
    epochs: Positive | None = None  # passes over all images in a round, whole or not

    def local_update(self, client: Client) -> Update:
        """Train on the pooled images for a round's share of passes."""
        passes = Fraction(*client.asked) * client.local.epochs
        if self.epochs is not None:
            passes = Fraction(str(self.epochs))
        whole = math.ceil(passes)
        if whole > passes:
            part = passes / whole * Fraction(*(client.work or (1, 1)))
            client.work = part.numerator, part.denominator
        return client.update(client.train(self.objective, epochs=whole))
