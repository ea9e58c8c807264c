"""FedLoGe's realigned heads (GLA-FR), its two profiles, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.simulate import run
from fedlt.worker.worker import Worker

PSI, PHI = "heads.auxiliary", "heads.local"


def start(lab, *, cid=1, **changes):
    """Return worker, server and one client before its first round."""
    federation = lab.federation(**{"strategy": "fedloge", **changes})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(cid, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
    return worker, server, client


def random_state(model, seed=0):
    generator = np.random.default_rng(seed)
    size = (model.num_classes, model.num_features)
    values = {
        f"{PSI}.weight": generator.normal(size=size),
        f"{PSI}.bias": generator.normal(size=size[0]),
        f"{PHI}.weight": generator.normal(size=size),
        f"{PHI}.bias": generator.normal(size=size[0]),
    }
    features = generator.normal(size=(7, 1, size[1]))
    return values, features


def tensors(values):
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def logits(functions, features):
    given = torch.tensor(features, dtype=torch.float32)
    return {name: function(given).numpy() for name, function in functions.items()}


@pytest.mark.parametrize(("profile", "scale"), [("paper", 1.0), ("reference", 1.7)])
def test_generic_heads_by_hand(lab, profile, scale):
    """GA-FR: scale * psi_c / |psi_c|, the bias untouched; the realigned head is primary."""
    _, server, client = start(lab, strategy={"name": "fedloge", "profile": profile})
    values, features = random_state(client.model)
    strategy = server.view.strategy
    found = logits(strategy.generic(client.model, tensors(values)), features)
    psi, bias = values[f"{PSI}.weight"], values[f"{PSI}.bias"]
    unit = scale * psi / np.sqrt((psi**2).sum(axis=1, keepdims=True))
    fixed = {n: t.numpy() for n, t in server.state.fixed.items()}
    shift = fixed.get("heads.sse_c.bias", 0.0)
    expected = {
        "realigned": features @ unit.T + bias,
        "sse_c": features @ fixed["heads.sse_c.weight"].T + shift,
        "auxiliary": features @ psi.T + bias,
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("profile", "order"),
    [
        ("paper", ["realigned_v1", "realigned_v2", "local", "auxiliary"]),
        ("reference", ["realigned_v2", "realigned_v1", "local", "auxiliary"]),
    ],
)
def test_personal_heads_by_hand(lab, profile, order):
    """LA-FR, class by class: psi_c |phi_c| with psi's bias (V1), plus phi and its bias (V2)."""
    _, server, client = start(lab, strategy={"name": "fedloge", "profile": profile})
    values, features = random_state(client.model, seed=1)
    given = tensors(values)
    before = {name: tensor.clone() for name, tensor in given.items()}
    found = logits(server.view.strategy.personal(client.model, given, given), features)
    psi, psi_bias = values[f"{PSI}.weight"], values[f"{PSI}.bias"]
    phi, phi_bias = values[f"{PHI}.weight"], values[f"{PHI}.bias"]
    first = np.stack([psi[c] * np.linalg.norm(phi[c]) for c in range(len(psi))])
    expected = {
        "realigned_v1": features @ first.T + psi_bias,
        "realigned_v2": features @ first.T + psi_bias + features @ phi.T + phi_bias,
        "local": features @ phi.T + phi_bias,
        "auxiliary": features @ psi.T + psi_bias,
    }
    assert list(found) == order
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(given[name], tensor) for name, tensor in before.items())


def test_realigned_norms(lab):
    """|psi'_c| = scale, read off as logits of unit features without bias; V1: |psi_c| |phi_c|."""
    _, server, client = start(lab)
    values, _ = random_state(client.model, seed=2)
    values[f"{PSI}.bias"] *= 0
    basis = np.eye(client.model.num_features)[:, None]
    given = tensors(values)
    generic = logits(server.view.strategy.generic(client.model, given), basis)["realigned"]
    np.testing.assert_allclose(np.linalg.norm(generic[:, 0], axis=0), np.ones(4), rtol=1e-5)
    personal = logits(server.view.strategy.personal(client.model, given, given), basis)[
        "realigned_v1"
    ]
    psi, phi = (np.linalg.norm(values[f"{p}.weight"], axis=1) for p in (PSI, PHI))
    np.testing.assert_allclose(np.linalg.norm(personal[:, 0], axis=0), psi * phi, rtol=1e-5)


def test_primary_numbers_in_the_rows_are_the_realigned_heads(reference):
    row = reference(strategy="fedloge").rows[-1]
    for name in ("generic/sse_c/accuracy", "generic/auxiliary/accuracy"):
        assert name in row
    for name in ("realigned_v2", "local", "auxiliary"):
        assert f"personal/{name}/accuracy" in row
    assert "generic/realigned/accuracy" not in row  # the primary head has the plain name
    assert "personal/realigned_v1/accuracy" not in row


# ---- profiles and mistakes


def test_reference_profile_has_a_random_bias_and_the_paper_none(lab):
    paper = start(lab)[1].state.fixed
    reference = [
        start(lab, seed=seed, strategy={"name": "fedloge", "profile": "reference"})[1].state.fixed
        for seed in (1, 2)
    ]
    assert "heads.sse_c.bias" not in paper
    bias = reference[0]["heads.sse_c.bias"]
    assert bias.shape == (4,)
    assert 0 < bias.abs().max() <= 0.25
    assert torch.equal(bias, reference[1]["heads.sse_c.bias"])
    assert torch.equal(paper["heads.sse_c.weight"], reference[0]["heads.sse_c.weight"])


def test_reference_profile_trains_with_its_bias(lab):
    _, server, client = start(lab, strategy={"name": "fedloge", "profile": "reference"})
    batch = next(iter(client.plugin.batches(client, 0)))
    model = client.model.eval()
    features = model.features(batch.images).squeeze(1)
    fixed, heads = server.state.fixed, model.heads
    loss = sum(
        functional.cross_entropy(functional.linear(features, weight, bias), batch.labels)
        for weight, bias in (
            (fixed["heads.sse_c.weight"], fixed["heads.sse_c.bias"]),
            (heads["auxiliary"].weight, heads["auxiliary"].bias),
            (heads["local"].weight, heads["local"].bias),
        )
    )
    found = server.view.strategy.objective(client, batch)
    assert float(found.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_reference_profile_runs(lab):
    outcome = lab.run(strategy={"name": "fedloge", "profile": "reference"})
    assert "personal/realigned_v1/accuracy" in outcome.rows[-1]
    assert set(outcome.checkpoint.tensors["fixed"]) == {"heads.sse_c.weight", "heads.sse_c.bias"}


def test_fewer_features_than_classes_are_refused_in_one_line(lab):
    data = {"options": {"num_classes": 10, "train_per_class": 40}}
    config = lab.fresh(strategy="fedloge", model={"width": 2}, data=data)
    with pytest.raises(FedltError, match=r"8 features, fewer than the 10 .*model\.width") as caught:
        run(config)
    assert "\n" not in str(caught.value)
    assert not lab.output.exists()
