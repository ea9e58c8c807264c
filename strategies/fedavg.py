"""FedAvg: McMahan et al., Communication-efficient learning of deep networks, AISTATS 2017.

https://arxiv.org/abs/1602.05629
"""

from __future__ import annotations

from dataclasses import dataclass

from fedlt.strategy import Strategy, StrategyTraits


@dataclass(frozen=True)
class FedAvg(Strategy):
    """Local SGD on every client, then the mean of the client models weighted by examples.

    These are the defaults of the strategy contract. The personal model is the generic one.
    """

    traits = StrategyTraits(sends="", trains_once=True)
