"""Methods that part the model, against plain loops of PyTorch; what travels and what stays.

Local, FedPer, LG-FedAvg, FedBN, FedRep and FedBABU differ in which tensors are averaged and in what
is trained when. The second implementation (conftest.py) has deep copies of the model, torch's own
SGD, and a mean over the names that travel.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedlt.errors import FedltError
from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker

LOCAL = {"lr": 0.05, "momentum": 0.5, "epochs": 2, "batch_size": 16}
NORMS = ("backbone.layers.2", "backbone.layers.6", "backbone.layers.9")


def everything(name):
    return True


def nothing(name):
    return False


def is_head(name):
    return name.startswith("heads.")


def is_body(name):
    return name.startswith("backbone.")


def is_norm(name):
    return name.startswith(NORMS)


def not_norm(name):
    return not is_norm(name)


BOTH = [((0, 1), everything)]
CASES = {
    "local_only": (nothing, BOTH, {}),
    "fedper": (is_body, BOTH, {}),
    "lg_fedavg": (is_head, BOTH, {}),
    "fedbn": (not_norm, BOTH, {}),
    "fedrep": (is_body, [((0, 1, 2), is_head), ((3, 4), is_body)], {"head_epochs": 3}),
    "fedbabu": (is_body, [((0, 1), is_body)], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_two_rounds_against_a_second_implementation(lab, by_hand, name):
    travels, phases, options = CASES[name]
    changes = {"strategy": {"name": name, **options}, "local": LOCAL, "rounds": 2}
    wanted = by_hand(travels, phases=phases, **changes)
    outcome = lab.run(**changes, clients_per_round=None, evaluate={"every": 2})
    broadcast = outcome.checkpoint.tensors["broadcast"]
    assert set(broadcast) == {n for n in wanted[0] if travels(n)}
    for cid, state in enumerate(wanted):
        own = outcome.personal[cid] if name != "fedbabu" else {}
        for tensor, value in {**broadcast, **own}.items():
            if value.is_floating_point():
                torch.testing.assert_close(value, state[tensor], rtol=1e-4, atol=1e-5)


def test_what_stays_at_home(reference):
    """Heads of FedPer, FedRep and FedBABU, bodies of LG-FedAvg: not in what travels."""
    for name in ("fedper", "fedrep", "fedbabu"):
        outcome = reference(strategy=name)
        assert not [n for n in outcome.checkpoint.tensors["broadcast"] if is_head(n)]
        assert any(is_head(n) for state in outcome.personal.values() for n in state)
    assert all(is_head(n) for n in reference(strategy="lg_fedavg").checkpoint.tensors["broadcast"])
    assert not reference(strategy="local_only").checkpoint.tensors["broadcast"]
    assert reference(strategy="local_only").result["bytes_down"] == 0


def test_what_has_a_generic_model(reference):
    kinds = {
        "local_only": "none",
        "lg_fedavg": "none",
        "fedproto": "none",
        "fedbn": "average",
        "fedper": "average",
        "fedrep": "average",
        "fedbabu": "shared",
        "fedavg_ft": "shared",
        "ditto": "shared",
        "pfedme": "shared",
        "apfl": "shared",
        "fedala": "shared",
    }
    assert {n: reference(strategy=n).result["generic_model"] for n in kinds} == kinds


@pytest.mark.parametrize(
    "name",
    ["local_only", "fedavg_ft", "fedbn", "fedper", "lg_fedavg", "fedrep", "fedbabu", "ditto",
     "pfedme", "apfl", "fedala", "fedproto"],
)  # fmt: skip
@pytest.mark.parametrize("scope", ["head", "all"])
def test_the_common_refresh_trains_the_model_that_is_scored(lab, name, scope):
    """``head`` moves the scored head alone, ``all`` the backbone as well; nothing is written."""
    federation = lab.federation(
        strategy=name, personal={"refresh": {"scope": scope, "epochs": 1}}, local={"lr": 0.05}
    )
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state, strategy = server.state, federation.view.strategy
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal={})
    kept = {n: t.detach().clone() for n, t in worker.train(client).personal.items()}
    request = ScoreRequest(
        round=1, broadcast=state.broadcast, fixed=state.fixed, private_mean={}, start=0, stop=1,
        generic=False, keep_logits=False, clients=(),
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in kept.items()}
    done = worker._finish(request, ClientRequest(1, kept))
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())

    def scored(personal, refreshed):
        shared = {**state.broadcast, **refreshed}
        return {**shared, **strategy.personal_weights(worker.model, shared, personal)}

    first, last = scored(kept, {}), scored(done.personal, done.refreshed)
    moved = {n for n in last if n in first and not torch.equal(first[n], last[n])}
    assert any(is_head(n) for n in moved)
    is_tuned = name in ("fedavg_ft", "fedbabu")  # by itself, in all layers, before the refresh
    assert any(is_body(n) for n in moved) is (scope == "all" or is_tuned)


# ---- identities, bit for bit


def test_one_client_alone_is_fedavg_of_one_client(lab):
    """Nobody to average with: local's model is FedAvg's, up to the rounding of (n x) / n."""
    one = {"partition": {"num_clients": 1}, "clients_per_round": None, "rounds": 1}
    own = lab.run(strategy="local_only", **one).personal[0]
    shared = lab.run(**one).checkpoint.tensors["broadcast"]
    for name, value in own.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, shared[name], rtol=3e-7, atol=0)


def test_fedbn_finds_every_batchnorm_by_type(lab):
    """In a ResNet-18 the norms of the down-sampling paths have names without ``bn``."""
    model = lab.federation(
        strategy="fedbn", model={"name": "resnet18", "width": 2}
    ).view.build_model()
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    wanted = {f"{path}.{name}" for path in norms for name in model.get_submodule(path).state_dict()}
    assert len(norms) == 20  # 1 + 8 blocks of 2 + 3 down-sampling paths
    assert set(model.names("personal")) == wanted


def test_fedbn_without_batchnorm_is_refused(lab):
    with pytest.raises(FedltError, match="no BatchNorm"):
        lab.run(strategy="fedbn", model={"norm": "group"})


def test_fedrep_without_head_epochs_is_fedbabus_body(reference):
    """Both then train the body under the common random head."""
    rep = reference(strategy={"name": "fedrep", "head_epochs": 0}).groups["broadcast"]
    babu = reference(strategy="fedbabu").groups["broadcast"]
    assert rep.keys() == babu.keys()
    assert all(torch.equal(value, babu[name]) for name, value in rep.items())


def test_fedbabus_head_keeps_its_first_bits(reference, lab):
    outcome = reference(strategy="fedbabu")
    start = make_server_half(lab.federation(strategy="fedbabu").view).model.state()
    fixed = outcome.checkpoint.tensors["fixed"]
    for part in ("weight", "bias"):
        first = start[f"heads.head.{part}"]
        assert torch.equal(fixed[f"heads.initial.{part}"], first)
        assert all(torch.equal(s[f"heads.head.{part}"], first) for s in outcome.personal.values())


@pytest.mark.parametrize("scope", ["", "all", "head"])
def test_fedbabus_tuning_by_torchs_own_sgd(lab, scope):
    """Five epochs of cross-entropy from the common head: of all layers, unless the file says head.

    With the head alone the backbone evaluates.
    """
    option = {"scope": scope} if scope else {}
    federation = lab.federation(strategy={"name": "fedbabu", **option}, local={"lr": 0.05})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(1, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
    model = copy.deepcopy(client.model)
    named = dict(model.named_parameters())
    names = [n for n in named if n.startswith("heads.head.") or (is_body(n) and scope != "head")]
    optimizer = torch.optim.SGD([named[n] for n in names], lr=0.05, momentum=0.5)
    model.train()
    model.backbone.train(scope != "head")
    for epoch in range(5):
        for batch in client.plugin.batches(client, epoch):
            optimizer.zero_grad()
            logits = model.heads["head"](model.features(batch.images)).squeeze(1)
            functional.cross_entropy(logits, batch.labels).backward()
            optimizer.step()
    start = client.snapshot()
    tuned, after, wanted = (
        federation.view.strategy.adapt(client),
        client.model.state(),
        model.state_dict(),
    )
    assert torch.equal(tuned["heads.head.weight"], after["heads.head.weight"])
    for name, tensor in wanted.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-5)
    moved = any(not torch.equal(after[n], start[n]) for n in start if is_body(n))
    assert moved == (scope != "head")
