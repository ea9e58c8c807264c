"""Heads changed after training: scored like the run itself, and computed a second time in NumPy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from fedlt.errors import FedltError
from fedlt.federation import prepare_parties
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.models import CosineHead, FixedHead, LinearHead
from fedlt.models.linear_probe import ProbeSettings, draw_head, train_head
from fedlt.realigning.changes import (
    Ccvr,
    Crt,
    GlaFr,
    Lws,
    PostHocAdjustment,
    TauNorm,
)
from fedlt.realigning.realigned import Realigned
from fedlt.realigning.session import Plan, outcome_path, realign
from fedlt.rng import torch_generator
from fedlt.runs.directory import run_directories
from fedlt.strategy import Strategy
from strategies import FedAvg

HERE = __file__
IDENTITY = Plan(TauNorm(tau=0.0))


@dataclass(frozen=True)
class Cosine(FedAvg):
    """A head that is not linear in the features."""

    def build(self, model):
        model.add_head("head", CosineHead(model.num_features, model.num_classes))


@dataclass(frozen=True)
class Bodies(FedAvg):
    """A head that is never trained; the server sends it once."""

    def build(self, model):
        head = LinearHead(model.num_features, model.num_classes)
        model.add_head("head", FixedHead(head.weight, head.bias))


@dataclass(frozen=True)
class Heads(FedAvg):
    """Every client keeps its head."""

    def build(self, model):
        super().build(model)
        model.set_group("heads", "personal")


@dataclass(frozen=True)
class Nobody(FedAvg):
    """No generic model."""

    def generic(self, model, broadcast):
        return {}


@dataclass(frozen=True)
class Unbiased(FedAvg):
    """A linear head without a bias."""

    def build(self, model):
        model.add_head("head", nn.Linear(model.num_features, model.num_classes, bias=False))


@dataclass(frozen=True)
class Tuned(FedAvg):
    """A personal model made when it is scored."""

    @property
    def adapt_epochs(self):
        return 1

    def adapt(self, client):
        client.train(self.objective, epochs=1)
        return {}


def spec(cls):
    return {"name": f"{HERE}:{cls.__name__}"}


def one(outcome, plan, **more):
    return realign(outcome.directory, [plan], **more)[0]


def shared(scores, final):
    """The numbers that both have; a scored model has every one but those of the training."""
    assert set(scores) <= set(final)
    assert {"generic/accuracy", "personal/accuracy", "personal/steps"} <= set(scores)
    return {name: final[name] for name in scores}


# ---- the identity


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "fedavg", "client": "balanced_softmax"},
        {"strategy": spec(Tuned)},
        {"batchnorm": "local"},
        {"batchnorm": "pooled", "personal": {"refresh": {"epochs": 1}}},
        {"strategy": spec(Bodies)},
        {"strategy": "centralised"},
        {"strategy": "flwr.serverapp.strategy:FedAdam"},
    ],
)
def test_the_identity_gives_the_numbers_of_the_run(reference, changes):
    outcome = reference(**changes)
    done = one(outcome, IDENTITY)
    final = outcome.result["final"]
    assert done["before"] == shared(done["before"], final)
    assert done["after"] == shared(done["after"], final)


def test_fedloge_realigned_after_training_is_fedloge(reference):
    """Its primary heads are GA-FR and LA-FR themselves; the identity gives the trained head."""
    outcome = reference(strategy="fedloge")
    final = outcome.result["final"]
    done = one(outcome, Plan(GlaFr()))
    assert done["local_head"]
    assert done["head"] == "heads.auxiliary.weight"
    assert done["before"] == shared(done["before"], final)
    assert done["after"] == shared(done["after"], final)
    plain = one(outcome, IDENTITY)["after"]
    assert plain["generic/accuracy"] == final["generic/auxiliary/accuracy"]
    flat = one(outcome, Plan(TauNorm(tau=1.0)))["after"]
    assert flat["generic/accuracy"] == final["generic/accuracy"]
    assert flat["generic/nll"] == final["generic/nll"]


def test_a_stopped_run_is_scored_at_its_last_checkpoint(lab, reference):
    config = lab.stopped(2)
    (directory,) = run_directories(f"{config.output}/{config.name}")
    done = realign(directory, [IDENTITY])[0]
    assert done["checkpoint_round"] == 2
    row = reference().rows[1]
    assert done["after"] == {name: row[name] for name in done["after"]}


# ---- a second computation, in NumPy


def numpy_features(outcome, images):
    """Features of the perceptron, from the checkpoint's arrays alone."""
    data = prepared(outcome).observer.data
    t = {n: v.double().numpy() for n, v in outcome.groups["broadcast"].items()}
    mean, std = (np.array(v).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
    pixels = ((images / 255.0 - mean) / std).reshape(len(images), -1)
    units = pixels @ t["backbone.hidden.weight"].T
    scaled = (units - t["backbone.norm.running_mean"]) / np.sqrt(
        t["backbone.norm.running_var"] + 1e-5
    )
    return np.maximum(scaled * t["backbone.norm.weight"] + t["backbone.norm.bias"], 0)


def numpy_logits(outcome, change):
    """Logits on the test images with a changed head."""
    data = prepared(outcome).observer.data
    t = {n: v.double().numpy() for n, v in outcome.groups["broadcast"].items()}
    features = numpy_features(outcome, data.eval_images)
    weight, bias = change(t["heads.head.weight"], t["heads.head.bias"], data.class_counts)
    return features @ weight.T + bias, data


def prepared(outcome):
    config = outcome.directory.config()
    return prepare_parties(config, resolve_strategy(config), resolve_client(config))


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (TauNorm(tau=0.7), lambda w, b, n: (w / np.linalg.norm(w, axis=1)[:, None] ** 0.7, b)),
        (GlaFr(scale=3.0), lambda w, b, n: (3 * w / np.linalg.norm(w, axis=1)[:, None], b)),
        (PostHocAdjustment(tau=1.5), lambda w, b, n: (w, b - 1.5 * np.log(n / n.sum()))),
    ],
)
def test_closed_forms_against_numpy(reference, method, change):
    outcome = reference(model={"name": "mlp"}, data={"imbalance_factor": 20})
    logits, data = numpy_logits(outcome, change)
    done = one(outcome, Plan(method))["after"]
    hit = logits.argmax(1) == data.eval_labels
    assert done["generic/accuracy"] == pytest.approx(hit.mean())
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    own = log_p[np.arange(len(log_p)), data.eval_labels]
    assert done["generic/nll"] == pytest.approx(-own.mean(), rel=1e-4)
    recalls = np.array([hit[data.eval_labels == c].mean() for c in range(data.num_classes)])
    mixes = data.client_counts / data.client_counts.sum(1, keepdims=True)
    assert done["personal/accuracy"] == pytest.approx((mixes @ recalls).mean())
    assert done["generic/nll"] != one(outcome, IDENTITY)["after"]["generic/nll"]


def test_the_prior_is_the_runs_policy_and_is_stated(reference):
    known = {"client": "balanced_softmax", "prior": {"use": "global", "source": "secure_sum"}}
    plan = Plan(PostHocAdjustment())
    assert one(reference(), plan)["prior"] == "oracle"
    assert one(reference(**known), plan)["prior"] == "secure_sum"
    assert one(reference(), IDENTITY)["prior"] is None


# ---- methods that learn


def test_ccvr_in_one_federated_round_is_ccvr_on_pooled_features(reference):
    """Sums over clients are the sums over all images: nothing is lost but the last bits."""
    outcome = reference()
    pooled, federated = (one(outcome, Plan(Ccvr(per_class=50), way)) for way in WAYS)
    for name in ("generic/nll", "generic/accuracy", "personal/accuracy"):
        assert federated["after"][name] == pytest.approx(pooled["after"][name], rel=1e-3)
    assert federated["after"]["generic/nll"] != federated["before"]["generic/nll"]
    assert pooled["oracle"]
    assert not federated["oracle"]
    assert (federated["rounds"], federated["clients"]) == (1, 5)


WAYS = ("pooled", "federated")


@pytest.mark.parametrize("method", [Crt(), Lws()], ids=["crt", "lws"])
def test_rounds_and_bytes_are_counted(reference, method):
    """3 of 5 clients a round, 4 bytes an entry: the model once a client, the head every time."""
    outcome = reference()
    done = one(outcome, Plan(method, "federated", rounds=2))
    broadcast = outcome.groups["broadcast"]
    model = sum(tensor.nbytes for tensor in broadcast.values())
    classes, features = broadcast["heads.head.weight"].shape
    entries = classes * (features + 1) if method.name == "crt" else classes
    assert done["rounds"] == 2
    assert 3 <= done["clients"] <= 5
    assert done["bytes_up"] == 2 * 3 * 4 * entries
    assert done["bytes_down"] == done["clients"] * model + 2 * 3 * 4 * entries
    again = one(outcome, Plan(method, "federated", rounds=2), engine="stacked")
    assert again["after"] == done["after"]
    pooled = one(outcome, Plan(method, "pooled"))
    assert (pooled["rounds"], pooled["bytes_up"]) == (0, None)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_learnt_in_zero_epochs(reference, way):
    """LWS begins at factors of one, CCVR at the trained head."""
    outcome = reference()
    for method in (Lws(epochs=0), Ccvr(epochs=0)):
        done = one(outcome, Plan(method, way, rounds=2))
        assert done["after"] == done["before"]


def test_a_round_of_crt_is_the_mean_of_the_clients_heads(reference):
    """One round of all clients, their features from NumPy, their heads averaged by examples."""
    outcome = reference(model={"name": "mlp"}, clients_per_round=5)
    method = Crt(epochs=3)
    done = one(outcome, Plan(method, "federated", rounds=1))["after"]
    data = prepared(outcome).observer.data
    labels, heads = torch.from_numpy(data.train_labels.copy()), []
    features = torch.from_numpy(numpy_features(outcome, data.train_images)).float()
    start = draw_head(features.shape[1], data.num_classes, torch_generator(1, "realign start", 3))
    for cid, own in enumerate(data.partition.clients):
        rows, draws = torch.from_numpy(own.copy()), torch_generator(1, "realign", 4, cid)
        settings = ProbeSettings(3, 0.1, 32, balanced=True)
        heads.append(train_head(start, features[rows], labels[rows], settings, draws))
    shares = torch.from_numpy(data.client_sizes / data.client_sizes.sum()).float()
    mean = {n: sum(s * h[n] for s, h in zip(shares, heads, strict=True)).numpy() for n in start}
    logits = numpy_features(outcome, data.eval_images) @ mean["weight"].T + mean["bias"]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    own = log_p[np.arange(len(log_p)), data.eval_labels]
    assert done["generic/nll"] == pytest.approx(-own.mean(), rel=1e-4)
    assert done["generic/accuracy"] == pytest.approx((logits.argmax(1) == data.eval_labels).mean())


def test_learning_on_pooled_features_helps_the_rare_classes(reference):
    """Mean of seeds 1 to 3; of six seeds, the least gain of Lws (the weakest) is 0.01, the mean
    0.07; Crt and Ccvr gain at least 0.36 each time."""
    digits = {"dataset": "digits", "imbalance_factor": 20, "options": {}}
    runs = [reference(data=digits, model={"name": "mlp", "width": 32}, seed=s) for s in (1, 2, 3)]
    for method in (Crt(), Lws(), Ccvr(per_class=50)):
        done = [one(run, Plan(method, "pooled")) for run in runs]
        for name, gain in (("generic/few", 0.02), ("generic/accuracy", 0.0)):
            before, after = (
                np.mean([d[moment][name] for d in done]) for moment in ("before", "after")
            )
            assert after > before + gain


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gives_the_numbers_of_serial(reference):
    plan = Plan(Crt(), "federated", rounds=2)
    outcome = reference(strategy="fedloge")
    assert one(outcome, plan, engine="ray")["after"] == one(outcome, plan)["after"]


# ---- what is refused, and what is left alone


@pytest.mark.parametrize(
    ("changes", "plan", "words"),
    [
        ({"strategy": spec(Cosine)}, IDENTITY, r"no generic head of strategy .* \(head\) is a lin"),
        ({"strategy": spec(Heads)}, IDENTITY, "no generic head of strategy"),
        ({"strategy": spec(Nobody)}, IDENTITY, "has no generic model"),
        ({"strategy": spec(Unbiased)}, Plan(PostHocAdjustment()), "needs a head with a bias"),
        ({"batchnorm": "local"}, Plan(Crt(), "pooled"), "every client has its own: 'backbone"),
    ],
)
def test_refusals_say_why(reference, changes, plan, words):
    outcome = reference(**changes)
    with pytest.raises(FedltError, match=words) as caught:
        one(outcome, plan)
    assert "\n" not in str(caught.value)


def test_every_verb_of_a_strategy_reaches_the_runs_own():
    verbs = {name for name in vars(Strategy) if not name.startswith("_")}
    settings = {name for name in Strategy.__annotations__ if not name.startswith("_")}
    assert verbs - settings <= set(vars(Realigned))


def test_runs_that_cannot_be_read(lab, tmp_path):
    with pytest.raises(FedltError, match="neither a run directory nor a folder of runs"):
        run_directories(tmp_path)
    config = lab.stopped(1, checkpoint={"every": 9})
    (directory,) = run_directories(f"{config.output}/{config.name}/1")
    with pytest.raises(FedltError, match="has no checkpoint to realign"):
        realign(directory, [IDENTITY])
    with directory.lock(), pytest.raises(FedltError, match="in use"):
        realign(directory, [IDENTITY])


@pytest.mark.parametrize("plan", [Plan(GlaFr()), Plan(Crt(), "federated", rounds=1)])
def test_the_run_is_only_read(reference, plan):
    outcome = reference(strategy="fedloge", engine={"personal_memory": 0})

    def files():
        paths = sorted(p for p in outcome.directory.path.rglob("*") if p.is_file())
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

    before = files()
    one(outcome, plan)
    assert files() == before
    assert outcome_path(outcome.directory, plan).parent.name == "realign"


def test_realigning_reads_no_global_randomness(reference):
    plan = Plan(Ccvr(per_class=20), "federated")
    first = one(reference(), plan)["after"]
    torch.manual_seed(99)
    assert one(reference(), plan)["after"] == first


def test_a_private_run_is_realigned_without_its_clients(lab):
    """tau_norm reads the head alone; cRT and a class prior would read what has no noise."""
    pytest.importorskip("dp_accounting")
    privacy = {"norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-2}
    outcome = lab.run(model={"name": "mlp", "width": 8, "norm": "none"}, privacy=privacy)
    assert one(outcome, Plan(TauNorm(tau=0.5)))
    for plan in (Plan(Crt(), "federated"), Plan(PostHocAdjustment())):
        with pytest.raises(FedltError, match="of which the run's privacy knows nothing"):
            one(outcome, plan)
