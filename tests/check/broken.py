"""Strategies and plugins that break the contract, each in one way; and some that keep it."""

from __future__ import annotations

import datetime
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from fedlt.client import ClientPlugin
from fedlt.models import LinearHead
from fedlt.rng import seed_torch, torch_generator
from fedlt.strategy import Strategy, StrategyTraits

CALLS = Counter()  # what no method should have


class OneStream(ClientPlugin):
    """Cross-entropy that forgets the axis of streams: right for one, wrong for several."""

    def loss(self, logits, batch, client):
        return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch.labels)


class AnswersNothing(Strategy):
    """Forgets to return the new state: the core notices, after the verb has ended."""

    def objective(self, client, batch):
        return super().objective(client, batch)

    def aggregate(self, state, total):
        total.mean()


@dataclass(frozen=True)
class SetsField(Strategy):
    """Keeps state in a field, which is frozen."""

    seen: int = 0

    def aggregate(self, state, total):
        self.seen = state.round
        return super().aggregate(state, total)


class NumpyNoise(Strategy):
    def objective(self, client, batch):
        return super().objective(client, batch) * float(np.random.uniform(0.5, 1.5))


class PythonNoise(Strategy):
    def local_update(self, client):
        return client.update(client.train(self.objective, epochs=random.choice([1, 2])))


class SeedsNumpy(Strategy):
    """Repeatable, but what others draw afterwards is not theirs any more."""

    def local_update(self, client):
        np.random.seed(client.cid)
        return super().local_update(client)


class TorchNoiseOnServer(Strategy):
    def aggregate(self, state, total):
        mean = total.mean()
        noisy = {n: t + 1e-3 * torch.randn(t.shape) for n, t in mean.items()}
        return replace(state, broadcast={**state.broadcast, **noisy})


class UnkeyedPersonal(Strategy):
    """Draws its personal head from torch's generator as it happens to stand."""

    def build(self, model):
        super().build(model)
        model.add_head("mine", LinearHead(model.num_features, model.num_classes), group="personal")

    def objective(self, client, batch):
        features = client.model.features(batch.images)
        heads = client.model.heads
        logits = heads["head"](features) + heads["mine"](features.detach())
        return client.plugin.loss(logits, batch, client)

    def init_personal(self, client):
        head = LinearHead(client.model.num_features, client.model.num_classes)
        return {f"heads.mine.{name}": value for name, value in head.state_dict().items()}


class RoundPersonal(UnkeyedPersonal):
    def init_personal(self, client):
        seed_torch(client.seed, "mine", client.cid, client.round)
        return super().init_personal(client)


class BroadcastPersonal(UnkeyedPersonal):
    def init_personal(self, client):
        start = client.broadcast
        return {f"heads.mine.{n}": start[f"heads.head.{n}"].clone() for n in ("weight", "bias")}


class WritesBroadcast(Strategy):
    def local_update(self, client):
        client.broadcast["heads.head.bias"].mul_(0.5)
        return super().local_update(client)


class WritesState(Strategy):
    """The server's half of the same mistake."""

    def aggregate(self, state, total):
        for name, mean in total.mean().items():
            state.broadcast[name].copy_(mean)
        return state


class WritesCounts(ClientPlugin):
    def setup(self, client):
        client.tensors["class_counts"].clamp_(min=1)

    def loss(self, logits, batch, client):
        client.tensors["log_prior"].add_(1.0)
        return super().loss(logits, batch, client)


class ModuleMemory(Strategy):
    def objective(self, client, batch):
        CALLS[client.cid] += 1
        return super().objective(client, batch) / CALLS[client.cid]


class LooseTensor(Strategy):
    """A scale that is trained, and that no group knows."""

    def build(self, model):
        super().build(model)
        model.heads["head"].scale = torch.ones(1, requires_grad=True)

    def objective(self, client, batch):
        logits = client.model(batch.images) * client.model.heads["head"].scale
        return client.plugin.loss(logits, batch, client)


class ReplacesParameter(Strategy):
    def local_update(self, client):
        head = client.model.heads["head"]
        head.weight = nn.Parameter(head.weight.detach().clone())
        return super().local_update(client)


class AddsParameter(Strategy):
    def local_update(self, client):
        if client.cid == 1:
            client.model.heads["head"].extra = nn.Parameter(torch.zeros(1))
        return super().local_update(client)


class DividesByClients(Strategy):
    """Mean of what is weighted already."""

    def aggregate(self, state, total):
        mean = {name: value / len(total.cids) for name, value in total.sums.items()}
        return replace(state, broadcast={**state.broadcast, **mean})


class HalvesTheMean(Strategy):
    traits = StrategyTraits(reduces=False)

    def aggregate(self, state, total):
        ones = [update.sums for update in total.updates]
        half = {n: sum(one[n] for one in ones) / (2 * len(ones)) for n in ones[0]}
        return replace(state, broadcast={**state.broadcast, **half})


class UnweightedStep(Strategy):
    """A rule of the server's own in which the weights do not cancel."""

    traits = StrategyTraits(reduces=False)

    def aggregate(self, state, total):
        start, share = state.broadcast, 1.0 / max(update.weight for update in total.updates)
        step = {
            name: sum((u.sums[name] - start[name]) * u.weight for u in total.updates) * share / 9
            for name in total.updates[0].sums
        }
        moved = {name: start[name] + way for name, way in step.items()}
        return replace(state, broadcast={**start, **moved})


class FollowsTheFirst(Strategy):
    """The first client's answer counts twice."""

    traits = StrategyTraits(reduces=False)

    def aggregate(self, state, total):
        ones = [total.updates[0], *total.updates]
        weight = sum(one.weight for one in ones)
        mean = {n: sum(one.sums[n] * one.weight for one in ones) / weight for n in ones[0].sums}
        return replace(state, broadcast={**state.broadcast, **mean})


@dataclass(frozen=True)
class HoldsFunction(Strategy):
    schedule: Callable[[int], float] = field(default_factory=lambda: lambda round_: 1.0 / round_)


class DetachedLoss(Strategy):
    def objective(self, client, batch):
        return super().objective(client, batch).detach()


class RaisesLate(Strategy):
    def aggregate(self, state, total):
        if state.round == 1:
            raise KeyError("momentum")
        return super().aggregate(state, total)


class ForgetsHead(Strategy):
    """Its update lacks the head, so the server's never moves."""

    def local_update(self, client):
        update = super().local_update(client)
        kept = {n: t for n, t in update.sums.items() if not n.startswith("heads.")}
        return replace(update, sums=kept)


class AnswersUnlike(Strategy):
    def local_update(self, client):
        extras = {f"count.{client.cid}": torch.ones(1)} if client.cid == 2 else {}
        return client.update(client.train(self.objective), extras=extras)

    def aggregate(self, state, total):
        return super().aggregate(state, total)


class ReadsClock(Strategy):
    def objective(self, client, batch):
        return super().objective(client, batch) * (1 + 1e-3 * (time.time() % 1))


class ReadsDate(ClientPlugin):
    """The same all day long: no other check can see it."""

    def loss(self, logits, batch, client):
        return super().loss(logits, batch, client) * datetime.date.today().month


class ReadsData(Strategy):
    """Correct, but the stacked engine cannot run it."""

    def objective(self, client, batch):
        return super().objective(client, batch) * client.data.num_examples**0.0


class WrongHead(Strategy):
    def generic(self, model, broadcast):
        return {"head": lambda features: features[..., :2]}


# ---- classes that keep the contract in ways that a check might take amiss


class KeyedDraws(UnkeyedPersonal):
    """Dropout from torch's own generator in a task, and keyed draws everywhere else."""

    def init_personal(self, client):
        seed_torch(client.seed, "mine", client.cid)
        return super().init_personal(client)

    def objective(self, client, batch):
        loss = super().objective(client, batch)
        return loss + 1e-3 * torch.rand(()) * client.squared_distance(client.broadcast)

    def aggregate(self, state, total):
        generator = torch_generator(0, "noise", state.round)
        mean = total.mean()
        noise = {n: 1e-4 * torch.randn(t.shape, generator=generator) for n, t in mean.items()}
        moved = {name: tensor + noise[name] for name, tensor in mean.items()}
        return replace(state, broadcast={**state.broadcast, **moved})


@dataclass(frozen=True)
class ServerMomentum(Strategy):
    """A rule of the server's own: half a step towards the mean, with momentum."""

    beta: float = 0.5

    def aggregate(self, state, total):
        start, before = state.broadcast, state.private
        step = {n: 0.5 * (mean - start[n]) for n, mean in total.mean().items()}
        momentum = {n: self.beta * before[n] + s if n in before else s for n, s in step.items()}
        moved = {name: start[name] + way for name, way in momentum.items()}
        return replace(state, broadcast={**start, **moved}, private=momentum)


class Median(Strategy):
    """The middle of the single answers, entry by entry."""

    traits = StrategyTraits(reduces=False)

    def aggregate(self, state, total):
        names = total.updates[0].sums
        middle = {
            name: torch.stack([update.sums[name] for update in total.updates]).median(0).values
            for name in names
        }
        return replace(state, broadcast={**state.broadcast, **middle})


class Unshared(Strategy):
    """Every client for itself."""

    def build(self, model):
        super().build(model)
        model.set_group("", "personal")

    def generic(self, model, broadcast):
        return {}


class Unweighted(Strategy):
    """Every client counts alike, and the server knows it."""

    def local_update(self, client):
        return client.update(client.train(self.objective), weight=1.0)

    def aggregate(self, state, total):
        mean = {name: value / len(total.cids) for name, value in total.sums.items()}
        return replace(state, broadcast={**state.broadcast, **mean})
