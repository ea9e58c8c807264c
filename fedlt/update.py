"""Values that travel between server and clients: tensors, the server's state, updates, totals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedlt.machine.memory import Pieces

Tensors = dict[str, Tensor]  # name -> tensor; model tensors go by their state_dict names
HeadFunction = Callable[[Tensor], Tensor]  # features (B, S, D) -> logits (B, S, C)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors with ``prefix`` put before every name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors whose names start with ``prefix``, with the prefix removed."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def joint_norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of tensors as one vector, added in float64; 0 for none."""
    norms = [torch.linalg.vector_norm(t.contiguous(), dtype=torch.float64) for t in tensors]
    return math.hypot(*torch.stack(norms).tolist()) if norms else 0.0


@dataclass(frozen=True)
class ServerState:
    """The server's whole state between rounds; checkpointed whole, never written in place."""

    round: int  # rounds finished
    broadcast: Tensors  # tensors sent to every client: the model's shared part, and extras
    private: Tensors = field(default_factory=dict)  # tensors never sent: momentum, sums
    fixed: Tensors = field(default_factory=dict)  # the model's fixed part: sent once, never changed


@dataclass(frozen=True)
class Update:
    """One client's answer in one round."""

    sums: Tensors  # added over the cohort with the weight: shared tensors, and extras
    weight: float  # usually the number of examples
    metrics: dict[str, float]  # sums over examples; the server divides by the metric "examples"
    personal: Tensors  # the client's personal state, saved when the round is committed
    plain: Tensors = field(default_factory=dict)  # added over the cohort without the weight
    is_step: bool = False  # True: shared parameters in sums are differences from the broadcast


@dataclass(frozen=True)
class Total:
    """Sums of the cohort's updates, without buffers: those are averaged as ``batchnorm:`` says."""

    sums: Tensors  # sum over clients of weight * sums; empty if the strategy does not reduce
    weight: float  # sum of the weights
    cids: tuple[int, ...]  # ids of the clients that answered, in cohort order
    num_clients: int  # clients in the population
    plain: Tensors = field(default_factory=dict)  # sum over clients of plain, without the weight
    updates: tuple[Update, ...] = ()  # all updates in cohort order, if ``reduces`` is False
    seed: int = 0  # the run's seed, for random numbers that the server draws

    def mean(self) -> Tensors:
        """Return every sum divided by the sum of the weights: the cohort's weighted mean."""
        means = Pieces(self.sums)
        means.pieces = [piece / self.weight for piece in means.pieces]
        return means.tensors()
