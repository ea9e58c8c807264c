"""CReFF: gradients and their matching by double backpropagation, and FedAvg beside it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.models.gradient_matching import class_gradients, match_features, matching_loss
from fedlt.strategy import ServerState, Total
from fedlt.worker.worker import Worker
from strategies import CReFF

C, M, D = 4, 5, 6
WEIGHT, BIAS = "heads.retrained.weight", "heads.retrained.bias"


def problem():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(C, M, D, generator=generator)
    weight, bias = torch.randn(C, D, generator=generator), torch.randn(C, generator=generator)
    wanted = torch.randn(C, C, D + 1, generator=generator)
    return features, weight, bias, wanted


def by_autograd(features, weight, bias, wanted):
    """Return the loss and its gradient, by backpropagation through the gradients of the head."""
    features = features.clone().requires_grad_()
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    loss = torch.zeros(())
    for label in range(C):
        logits = functional.linear(features[label], weight, bias)
        own = functional.cross_entropy(logits, torch.full((M,), label))
        slope, offset = torch.autograd.grad(own, (weight, bias), create_graph=True)
        for row in range(C):
            target = wanted[label, row, :-1]
            loss = loss + 1 - slope[row] @ target / slope[row].norm() / target.norm()
        target = wanted[label, :, -1]
        loss = loss + 1 - offset @ target / offset.norm() / target.norm()
    return loss.detach(), torch.autograd.grad(loss, features)[0]


def test_matching_and_its_gradient_by_double_backpropagation():
    features, weight, bias, wanted = problem()
    loss, slope = by_autograd(features, weight, bias, wanted)
    found = matching_loss(class_gradients(features, weight, bias, torch.arange(C)), wanted)
    torch.testing.assert_close(found, loss)
    held = torch.tensor([True] * C)
    moved = match_features(features, wanted, held, weight, bias, steps=1, lr=0.1)
    torch.testing.assert_close(moved, features - 0.1 * slope)


def test_matching_comes_near_gradients_that_can_be_had_and_leaves_absent_classes_alone():
    _, weight, bias, _ = problem()
    generator = torch.Generator().manual_seed(1)
    real, start = torch.randn(2, C, M, D, generator=generator)
    labels, held = torch.arange(C), torch.tensor([True, True, False, True])
    wanted = class_gradients(real, weight, bias, labels)
    moved = match_features(start, wanted, held, weight, bias, steps=200, lr=0.1)
    assert torch.equal(moved[2], start[2])
    before, after = (
        matching_loss(class_gradients(own, weight, bias, labels)[held], wanted[held])
        for own in (start, moved)
    )
    assert float(after) < 0.1 * float(before)


def test_fedavgs_model_is_trained_beside_it_bit_for_bit(reference):
    ours, plain = reference(strategy="creff").groups, reference().groups
    for name, tensor in plain["broadcast"].items():
        assert torch.equal(ours["broadcast"][name], tensor), name
    assert set(ours["broadcast"]) - set(plain["broadcast"]) == {WEIGHT, BIAS}
    rows = reference(strategy="creff").rows[-1], reference().rows[-1]
    assert rows[0]["generic/head/accuracy"] == rows[1]["generic/accuracy"]


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_a_client_sends_the_received_models_gradient_of_each_class(lab, augment):
    """One backward pass of the retrained head over all images of a class, in evaluation mode.

    With augmentation the batches are others: the gradients point the same way, roughly.
    """
    federation = lab.federation(strategy="creff", local={"augment": augment})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(1, 1, server.state.broadcast, fixed={}, personal={})
    model, data = client.model.eval(), client.data
    expected = torch.zeros(4, 4, 17)
    for label in data.class_counts.nonzero().flatten().tolist():
        own = data.indices[data.labels[data.indices] == label]
        assert len(own) <= 32
        pixels = (data.images[own] / 255 - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
        logits = model.heads["retrained"](model.features(pixels)).squeeze(1)
        loss = functional.cross_entropy(logits, torch.full((len(own),), label))
        slope = torch.autograd.grad(loss, list(model.heads["retrained"].parameters()))
        expected[label] = torch.cat([slope[0], slope[1][:, None]], dim=1)
    update = worker.train(client)
    found = update.plain["gradients"]
    assert update.plain["held"].tolist() == (data.class_counts > 0).float().tolist()
    if augment == "none":
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    else:
        assert not torch.allclose(found, expected, rtol=1e-3, atol=1e-5)
        cosine = functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
        assert float(cosine) > 0.9
    assert torch.equal(update.sums[WEIGHT], server.state.broadcast[WEIGHT])


def test_the_server_takes_the_mean_over_the_clients_that_hold_a_class():
    """Sums over 1, 2 and 3 holders: the features move as by the means; class 3 has no holder."""
    features, weight, bias, wanted = problem()
    holders = torch.tensor([1.0, 2.0, 3.0, 0.0])
    broadcast = {WEIGHT: weight, BIAS: bias, "w": torch.zeros(1)}
    state = ServerState(4, broadcast, private={"federated_features": features})
    plain = {"gradients": wanted * holders[:, None, None], "held": holders}
    total = Total({"w": torch.ones(1), WEIGHT: weight, BIAS: bias}, 1.0, (0,), 5, plain=plain)
    strategy = CReFF(per_class=M, match_steps=4, retrain_epochs=2)
    new = strategy.aggregate(state, total)
    expected = match_features(features, wanted, holders > 0, weight, bias, steps=4, lr=0.1)
    torch.testing.assert_close(new.private["federated_features"], expected)
    assert torch.equal(new.private["federated_features"][3], features[3])
    assert new.broadcast["w"] == 1
    assert not torch.equal(new.broadcast[WEIGHT], weight)
    assert torch.equal(state.private["federated_features"], features)  # not written


def test_refresh_trains_the_head_that_is_scored(lab, reference):
    plain = reference(strategy="creff").rows[-1]
    changed = lab.run(strategy="creff", personal={"refresh": {"epochs": 2}}).rows[-1]
    assert changed["personal/accuracy"] != plain["personal/accuracy"]
    assert changed["personal/head/accuracy"] == plain["personal/head/accuracy"]
