"""Federated averaging for any network and loss, by which generators are trained.

Every client of a round takes the same number of AdamW steps from the average. Weights and both
moments of Adam are averaged, weighted by images, so that with a single client the training is plain
AdamW. McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629; Loshchilov and Hutter, ICLR
2019, https://arxiv.org/abs/1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from fedlt.data.resampling import class_shares, draw_rows
from fedlt.machine.durable import pack_tensors
from fedlt.rng import numpy_generator, torch_generator

# (rows (B,) of a client, probability (C,) of each class in sampling, generator) -> scalar
Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
_MOMENTS = ("exp_avg", "exp_avg_sq")
_PARTS = ("weights", *_MOMENTS, "mean")
_SAVE_EVERY = 5  # rounds between two saves


@dataclass(frozen=True)
class Fit:
    """Settings of the training of a network."""

    rounds: int
    steps: int  # steps of a client in a round
    batch_size: int
    lr: float  # initial learning rate; falls to 0 along a cosine
    cohort: int  # largest number of clients in a round
    decay: float  # decay per step of the running mean of the weights


def fit(
    network: nn.Module,
    loss: Loss,
    clients: Sequence[Tensor],
    labels: Tensor,
    how: Fit,
    *,
    seed: int,
    purpose: str,
    file: Path,
    tick: Callable[[], None],
) -> None:
    """Train a network in place; in the end the network holds the running mean of its weights.

    If ``file`` exists, the training continues from this state, with the same bits in the end.

    Args:
        network: Network to train, on the device that it lies on.
        loss: Loss of a batch of rows. A client draws batches with class probabilities proportional
            to the square roots of the class counts.
        clients: Rows of each client, none empty.
        labels: (N,) classes of all rows, on the CPU.
        how: Settings of the training.
        seed: Seed of all random numbers.
        purpose: First part of the keys of all random numbers.
        file: File that holds the state after some rounds.
        tick: Function to call after every round.
    """
    state = _State.read(file, network) or _State.of(network)
    count = int(labels.max()) + 1
    shares = [class_shares(labels[r].bincount(minlength=count), power=0.5) for r in clients]
    for round_ in range(state.round + 1, how.rounds + 1):
        chosen = _cohort(len(clients), how.cohort, seed, purpose, round_)
        total = sum(len(clients[cid]) for cid in chosen)
        answers: dict[str, Tensor] = {}
        for cid in chosen:
            generator = torch_generator(seed, purpose, round_, cid)
            rows, share = clients[cid], shares[cid]
            draws = [
                rows[draw_rows(labels[rows], share, how.batch_size, generator)]
                for _ in range(how.steps)
            ]
            answer = _local(network, loss, state, draws, share, how, generator)
            for name, tensor in answer.items():
                part = tensor * (len(rows) / total)
                answers[name] = answers[name] + part if name in answers else part
        state = state.after(answers, how)
        tick()
        if round_ % _SAVE_EVERY == 0 or round_ == how.rounds:
            state.write(file)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(state.tensors[f"mean.{name}"])
    network.eval()


def _cohort(clients: int, most: int, seed: int, purpose: str, round_: int) -> list[int]:
    if most >= clients:
        return list(range(clients))
    drawn = numpy_generator(seed, f"{purpose} cohort", round_).choice(clients, most, replace=False)
    return sorted(drawn.tolist())


def _local(
    network: nn.Module,
    loss: Loss,
    state: _State,
    draws: Sequence[Tensor],
    share: Tensor,
    how: Fit,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return a client's weights and moments after the client's steps of a round."""
    done, planned = state.round * how.steps, how.rounds * how.steps
    optimizer = torch.optim.AdamW(network.parameters(), lr=how.lr)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(state.tensors[f"weights.{name}"])
            moments = {m: state.tensors[f"{m}.{name}"].clone() for m in _MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(done)), **moments}
    network.train()
    for step, rows in enumerate(draws):
        for group in optimizer.param_groups:
            group["lr"] = how.lr * 0.5 * (1 + math.cos(math.pi * (done + step) / planned))
        optimizer.zero_grad()
        torch.autograd.backward([loss(rows, share, generator)])
        optimizer.step()
    answer = {}
    for name, parameter in network.named_parameters():
        answer[f"weights.{name}"] = parameter.detach()
        answer |= {f"{m}.{name}": optimizer.state[parameter][m] for m in _MOMENTS}
    return answer


@dataclass(frozen=True)
class _State:
    """The server's state after a round."""

    round: int
    tensors: dict[str, Tensor]  # weights.NAME, exp_avg.NAME, exp_avg_sq.NAME, mean.NAME

    @classmethod
    def of(cls, network: nn.Module) -> _State:
        """Return the state before the first round: a network's weights, and moments of zero."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in network.named_parameters():
            now = parameter.detach()
            tensors |= {f"{part}.{name}": now.clone() for part in ("weights", "mean")}
            tensors |= {f"{moment}.{name}": torch.zeros_like(now) for moment in _MOMENTS}
        return cls(0, tensors)

    def after(self, answers: dict[str, Tensor], how: Fit) -> _State:
        """Return the state after a round; the running mean follows the weights faster at first."""
        steps = (self.round + 1) * how.steps
        decay = min(how.decay, (1 + steps) / (10 + steps)) ** how.steps
        means = {}
        for name, tensor in answers.items():
            if name.startswith("weights."):
                mean = f"mean.{name.removeprefix('weights.')}"
                means[mean] = decay * self.tensors[mean] + (1 - decay) * tensor
        return _State(self.round + 1, {**answers, **means})

    def write(self, file: Path) -> None:
        """Write the state to a file, atomically."""
        part = file.with_suffix(".part")
        part.write_bytes(pack_tensors({**self.tensors, "round": torch.tensor(self.round)}))
        part.replace(file)

    @classmethod
    def read(cls, file: Path, network: nn.Module) -> _State | None:
        """Return the state in a file; None if the file is missing or not of this network."""
        with suppress(OSError, SafetensorError, KeyError):
            tensors = load(file.read_bytes())
            round_ = int(tensors.pop("round"))
            device = next(network.parameters()).device
            names = {f"{part}.{n}" for part in _PARTS for n, _ in network.named_parameters()}
            if names == set(tensors):
                return cls(round_, {n: t.to(device) for n, t in tensors.items()})
        return None
