"""The stacked engine against the serial one: every method, every policy, clients of any size.

The backbone here has no kinks (tanh instead of ReLU, averages instead of maxima): where an
activation lies within rounding of a kink, two correct programs may take different sides of it, on
one machine and not on another. One test has the network with kinks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import smooth_backbone
import torch
from built_in import BUILT_IN as ALL
from by_hand import tasks_of
from smooth_backbone import Smooth
from tiers import in_tiers
from torch import nn

from fedlt.client import Batch, ClientPlugin, add_metrics
from fedlt.data.partition import Partition
from fedlt.engines import engine as base
from fedlt.engines.serial import SerialEngine
from fedlt.engines.stack import Stack
from fedlt.engines.stacked import StackedEngine, stack_size
from fedlt.federation import Parties
from fedlt.flower.records import tensors_of
from fedlt.flower.replies import metric_lists
from fedlt.flower.server_half import make_server_half
from fedlt.models import LinearHead, Model
from fedlt.strategy import StrategyTraits
from strategies import FedAvg

TOLERANCE = 1e-4  # of the largest entry of a tensor, after 3 rounds: docs/engines.md
SMOOTH = f"{smooth_backbone.__file__}:smooth"
ROUNDING = 1e-7  # of what is zero but for rounding: the control variate of a bias before a norm


@dataclass(frozen=True)
class Prox(FedAvg):
    """A proximal term, by the client's verb."""

    def objective(self, client, batch):
        return super().objective(client, batch) + client.squared_distance(client.broadcast)


@dataclass(frozen=True)
class ByHand(FedAvg):
    """The same with a choice that the parameters' own marks make."""

    def objective(self, client, batch):
        trained = {n: p for n, p in client.model.named_parameters() if p.requires_grad}
        far = sum((p - client.broadcast[n]).square().sum() for n, p in trained.items())
        return super().objective(client, batch) + far


@dataclass(frozen=True)
class Phases(FedAvg):
    """A personal head, then the rest of the model; clients with an odd id train once more."""

    def build(self, model):
        super().build(model)
        model.set_group("heads.head", "personal")

    def local_update(self, client):
        names = client.model.parameter_names
        done = [
            client.train(self.objective, epochs=2, only=names("personal")),
            client.train(self.objective, only=names("shared"), no_decay=("backbone.layers.0",)),
        ]
        if client.cid % 2:
            done.append(client.train(lambda c, b: 2 * self.objective(c, b)))
        return client.update(add_metrics(*done))


@dataclass(frozen=True)
class Control(FedAvg):
    """Control variates: extras in the broadcast, tensors of a client's own, personal state."""

    def init(self, model):
        state = super().init(model)
        zeros = {f"c/{n}": torch.zeros_like(state.broadcast[n]) for n in model.parameter_names()}
        return replace(state, broadcast={**state.broadcast, **zeros})

    def init_personal(self, client):
        return {n: torch.zeros_like(t) for n, t in client.broadcast.items() if n[:2] == "c/"}

    def objective(self, client, batch):
        drift = [
            (p * (client.broadcast[f"c/{n}"] - client.tensors[f"c/{n}"])).sum()
            for n, p in client.model.named_parameters()
        ]
        return super().objective(client, batch) + sum(drift)

    def local_update(self, client):
        own = client.personal
        client.tensors.update(own)
        metrics = client.train(self.objective)
        state, factor = client.model.state(), 1 / (metrics["steps"] * client.local.lr)
        new = {
            name: own[name] + (client.broadcast[name[2:]] - state[name[2:]]) * factor
            for name in own
        }
        return client.update(metrics, extras=new, personal=new)


@dataclass(frozen=True)
class Single(FedAvg):
    """The mean without weights, from the single updates."""

    traits = StrategyTraits(reduces=False)

    def aggregate(self, state, total):
        new = dict(state.broadcast)
        for name in total.updates[0].sums:
            new[name] = torch.stack([update.sums[name] for update in total.updates]).mean(0)
        return replace(state, broadcast=new)


@dataclass(frozen=True)
class Draws(FedAvg):
    """Draws from torch's own generator before and after it trains; twice."""

    def local_update(self, client):
        client.tensors["offset"] = torch.rand(())
        first = client.train(self.objective)
        drawn = {"drawn": torch.stack([client.tensors["offset"], torch.rand(())])}
        metrics = add_metrics(first, client.train(self.objective))
        drawn["again"] = torch.rand(3)
        return client.update(metrics, personal=drawn)

    def objective(self, client, batch):
        return super().objective(client, batch) * (1 + client.tensors["offset"])


@dataclass(frozen=True)
class Views(ClientPlugin):
    """Batches with extras, in an order drawn from torch's own generator, and an anchor."""

    def setup(self, client):
        counts = client.tensors["class_counts"].float()
        client.tensors["rarity"] = counts.sum() / (counts + 1)

    def batches(self, client, epoch):
        for batch in super().batches(client, epoch):
            order = torch.randperm(len(batch.labels))
            weights = torch.rand(len(order))
            yield Batch(batch.images[order], batch.labels[order], {"weights": weights})

    def loss(self, logits, batch, client):
        own = logits.mean(1).log_softmax(1).gather(1, batch.labels[:, None])[:, 0]
        rarity = client.tensors["rarity"][batch.labels]
        return -(own * rarity * batch.extra["weights"]).mean() / 10


@dataclass(frozen=True)
class Spoiled(ClientPlugin):
    """Client 3 has an infinite loss."""

    def setup(self, client):
        client.tensors["factor"] = torch.tensor(float("inf") if client.cid == 3 else 1.0)

    def loss(self, logits, batch, client):
        return super().loss(logits, batch, client) * client.tensors["factor"]


# InfoBatch reads the model between batches and is refused: tests/clients/test_infobatch.py.
BUILT_IN = {name: changes for name, changes in ALL.items() if "infobatch" not in name}
METHODS = {
    **BUILT_IN,
    "FedAdam": {"strategy": {"name": "flwr.serverapp.strategy:FedAdam", "eta": 0.05}},
    **{cls.__name__: {"strategy": f"{__file__}:{cls.__name__}"}
       for cls in (Prox, ByHand, Phases, Control, Single, Draws)},
    "Views": {"client": f"{__file__}:Views"},
}  # fmt: skip
SETTINGS = {
    **METHODS,
    "group-norm": {"model": {"norm": "group"}},
    "pooled": {"batchnorm": "pooled"},
    "fedavg-local": {"batchnorm": "local"},
    "fedloge-local": {"strategy": "fedloge", "batchnorm": "local"},
    "refresh": {"strategy": "fedloge", "personal": {"refresh": {"scope": "all", "epochs": 1}}},
    "secure-sum": {
        "client": "balanced_softmax",
        "prior": {"use": "mix", "source": "secure_sum", "gamma": 0.3},
    },
    "sgd": {
        "strategy": "fedloge",
        "local": {"epochs": 3, "momentum": 0.9, "weight_decay": 0.1, "head_lr": 0.02, "lr": 0.05},
    },
    "knobs": {
        "strategy": "fedloge",
        "local": {"steps": 7, "momentum": 0.5, "nesterov": True, "clip": 0.5, "lr": 0.05},
    },
    "clipped-sam": {"local": {"steps": 3, "clip": 0.2, "sam_rho": 0.1, "momentum": 0.0}},
    "phases-decay": {
        "strategy": f"{__file__}:Phases",
        "local": {"momentum": 0.0, "weight_decay": 0.1},
    },
    "augmented": {"local": {"epochs": 2, "augment": "crop_flip"}},
    "stacks-of-2": {"engine": {"stack": 2}},
    "stacks-of-1": {"engine": {"stack": 1}},
}
settings = in_tiers(SETTINGS, BUILT_IN)
methods = in_tiers(METHODS, BUILT_IN)


def on(engine, changes, **more):
    """Return the settings of a smooth model on an engine."""
    model = {"name": SMOOTH, **changes.get("model", {})}
    rest = changes.get("engine", {}) if engine == "stacked" else {}
    return {**changes, "model": model, "engine": {"name": engine, **rest}, **more}


def assert_agree(outcome, expected):
    """Compare two runs: every tensor and metric to the tolerance, every count exactly."""
    found, wanted = outcome.groups, expected.groups
    assert found.keys() == wanted.keys()
    for group, tensors in wanted.items():
        for name, tensor in tensors.items():
            other = found[group][name]
            if not tensor.is_floating_point():
                assert torch.equal(other, tensor), (group, name)
                continue
            atol = TOLERANCE * float(tensor.abs().max()) + ROUNDING
            torch.testing.assert_close(other, tensor, rtol=0, atol=atol)
    assert outcome.checkpoint.meta["excluded"] == expected.checkpoint.meta["excluded"]
    for row, other in zip(expected.rows, outcome.rows, strict=True):
        assert row.keys() == other.keys()
        assert other["train/loss"] == pytest.approx(row["train/loss"], rel=TOLERANCE)


@settings
def test_stacked_agrees_with_serial(reference, changes):
    assert_agree(reference(**on("stacked", changes)), reference(**on("serial", changes)))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_networks_with_kinks_agree(lab, norm):
    """One activation on the other side of a kink moves a client by per cents, the mean by less."""
    changes = {"model": {"norm": norm}, "rounds": 1}
    ends = {}
    for engine in ("serial", "stacked"):
        ends[engine] = lab.run(**changes, engine={"name": engine}).checkpoint.tensors["broadcast"]
    start = make_server_half(lab.federation(**changes).view).state.broadcast
    far = torch.cat([(t - start[n]).flatten().double() for n, t in ends["serial"].items()])
    apart = [(ends["stacked"][n] - t).flatten().double() for n, t in ends["serial"].items()]
    assert 0 < torch.cat(apart).norm() < 0.05 * far.norm()


def test_the_comparison_can_fail(lab, reference):
    slower = lab.run(**on("stacked", {"local": {"lr": 0.0999}}))
    with pytest.raises(AssertionError, match="not close"):
        assert_agree(slower, reference(**on("serial", {})))


@methods
def test_resumed_runs_give_the_same_bits(lab, reference, changes):
    """So does a run that is made again: every round of the resumed one is."""
    changes = on("stacked", changes)
    assert lab.resume(lab.stopped(1, **changes)).bits == reference(**changes).bits


def test_chunk_sums_of_several_clients_and_stacks_across_them(lab, monkeypatch):
    """Chunks of 3 and 2 clients, stacks of 2, 1 and 2."""
    monkeypatch.setattr(base, "MAX_CHUNKS", 2)
    changes = {"clients_per_round": None, "strategy": "fedloge"}
    expected = lab.run(**on("serial", changes))
    assert_agree(lab.run(**on("stacked", {**changes, "engine": {"stack": 2}})), expected)


# ---- clients of any size

SIZES = (9, 25, 1, 10, 2, 11, 0)


def uneven(lab, sizes, **changes):
    """Return a federation whose clients have these many images, the last one all others."""
    changes = {"local": {"batch_size": 10, "momentum": 0.5, "epochs": 2}, **changes}
    changes["clients_per_round"] = None
    federation = lab.federation(**on("serial", changes, partition={"num_clients": len(sizes) + 1}))
    labels, rest = federation.observer.data.train_labels, np.random.default_rng(0)
    owner = np.full(len(labels), len(sizes))
    owner[rest.permutation(len(labels))[: sum(sizes)]] = np.repeat(np.arange(len(sizes)), sizes)
    partition = Partition.from_owner(
        owner, labels, num_clients=len(sizes) + 1, num_classes=federation.observer.data.num_classes
    )
    data = replace(
        federation.observer.data, partition=partition, client_counts=partition.counts(labels)
    )
    view = federation.view
    return Parties.of(view.config, view.strategy, view.plugin, data)


def replies_of(engine, federation, cids):
    server = make_server_half(federation.view)
    with engine(federation) as grid:
        messages = tasks_of(server, grid)
        return grid.send_and_receive([messages[cid] for cid in cids])


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_ragged_sizes_agree(lab, norm):
    """Steps of two epochs in batches of 10; a last batch of 1 joins the one before it.

    9, 10 and 11 images are one batch, 1 and 2 as well, 25 are three, 0 are none.
    """
    federation = uneven(lab, SIZES, model={"name": SMOOTH, "norm": norm})
    cids = range(len(SIZES))
    serial = replies_of(SerialEngine, federation, cids)
    stacked = replies_of(StackedEngine, federation, cids)
    for one, other in zip(serial, stacked, strict=True):
        for name, tensor in tensors_of(one.content["arrays"]).items():
            found = tensors_of(other.content["arrays"])[name]
            atol = TOLERANCE * float(tensor.abs().max())
            torch.testing.assert_close(found, tensor, rtol=0, atol=atol)
    lists = [metric_lists(reply) for reply in stacked]
    assert [int(own["steps"][0]) for own in lists] == [2, 6, 2, 2, 2, 2, 0]
    assert [int(own["examples"][0]) for own in lists] == [2 * size for size in SIZES]


def test_only_batches_of_one_size_are_stacked(lab, monkeypatch):
    """Sizes 25, 20, 20 in batches of 10: all have two of 10, then the first has one of 5."""
    seen = []
    step = Stack._step

    def spy(stack, chosen, batches, factors):
        seen.append((chosen, [len(batch.labels) for batch in batches]))
        step(stack, chosen, batches, factors)

    monkeypatch.setattr(Stack, "_step", spy)
    federation = uneven(lab, (20, 25, 20), local={"batch_size": 10})
    replies_of(StackedEngine, federation, range(3))
    assert seen == [((0, 1, 2), [10, 10, 10])] * 2 + [((0,), [5])]


def test_values_that_are_not_finite_stay_with_their_client(lab):
    changes = {"client": f"{__file__}:Spoiled", "clients_per_round": None, "rounds": 2}
    expected = lab.run(**on("serial", changes))
    assert expected.result["excluded"] == [[1, 3], [2, 3]]
    assert_agree(lab.run(**on("stacked", changes)), expected)


# ---- the size of a stack


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2**24, device="meta"))


def test_stack_size_is_bounded_by_number_and_memory():
    """2^24 numbers of 4 bytes, 4 times a client: 2^28 bytes, of which 2^30 hold 4."""
    large = Model(Smooth(1, 4, "batch"), 2)
    large.add_head("head", LinearHead(16, 2))
    assert stack_size(large) == 32
    large.add_head("large", Large(), group="shared")
    assert stack_size(large) == 3  # the small parts take the room of the fourth
