"""Values that travel between server and clients: tensors, the server's state, updates, totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Tensors = dict[str, Tensor]  # name -> tensor; model tensors go by their state_dict names
HeadFunction = Callable[[Tensor], Tensor]  # features (B, S, D) -> logits (B, S, C)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return tensors under longer names: ``prefix`` before each."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors whose names start with ``prefix``, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class ServerState:
    """Everything the server knows between rounds; checkpointed whole; never written in place."""

    round: int  # rounds finished
    broadcast: Tensors  # what every client gets: the shared part of the model, and extras
    private: Tensors = field(default_factory=dict)  # what only the server keeps: momentum, sums
    fixed: Tensors = field(default_factory=dict)  # the model's fixed part: sent once, never changed


@dataclass(frozen=True)
class Update:
    """One client's answer to one round."""

    sums: Tensors  # reduced over the cohort as a weighted sum: shared tensors, and extras
    weight: float  # usually the number of examples
    metrics: dict[str, float]  # sums over examples; the server divides by their "examples"
    personal: Tensors  # the client's own state, committed together with the round
    plain: Tensors = field(default_factory=dict)  # summed over the cohort without the weight
    is_step: bool = False  # sums hold steps from the broadcast in the place of shared parameters


@dataclass(frozen=True)
class Total:
    """The cohort's answers, reduced. Buffers are not in it: ``batchnorm:`` averages them."""

    sums: Tensors  # sum over clients of weight * sums; empty where the strategy does not reduce
    weight: float  # sum of the weights
    cids: tuple[int, ...]  # the clients in it, in cohort order
    num_clients: int  # clients in the population
    plain: Tensors = field(default_factory=dict)  # sum over clients of plain, without the weight
    updates: tuple[Update, ...] = ()  # where ``reduces`` is False: all of them, in cohort order
    seed: int = 0  # the run's: keys what the server draws, by purpose and round

    def mean(self) -> Tensors:
        """Return the weighted mean of every sum."""
        return {name: value / self.weight for name, value in self.sums.items()}
