"""Fed-GraB: the balancer against hooks and a controller in NumPy, and the prior by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from clients import FedLC
from fedlt.models.balancer import GradientBalancer, norm_prior, rare_classes
from strategies import FedGraB

GAINS = (10.0, 0.01, 0.1)
STATE = ("difference", "output", "errors")


class Controller:
    """The incremental PID controller of one class, as the textbook has it; clipped at 3."""

    def __init__(self):
        self.output, self.errors = 0.0, [0.0, 0.0, 0.0]

    def step(self, value):
        self.errors = [0.0 - value, *self.errors[:2]]
        e0, e1, e2 = self.errors
        change = 10 * (e0 - e1) + 0.01 * e0 + 0.1 * ((e0 - e1) - (e1 - e2))
        self.output = min(max(self.output + change, -3.0), 3.0)
        return self.output


def weight(u):
    return (10 / 9) / (1 / 9 + np.exp(-u / 2))


def hooked(logits, labels, scale):
    """Return the gradient of plain one-vs-all cross-entropy, scaled on its way back."""
    given = logits.clone().requires_grad_()
    target = functional.one_hot(labels, logits.shape[-1]).double()
    through = given * 1
    through.register_hook(lambda gradient: gradient * torch.tensor(scale))
    loss = functional.binary_cross_entropy_with_logits(through, target, reduction="sum")
    (loss / len(labels)).backward()
    return given.grad


def test_five_batches_against_hooks_and_controllers():
    """Class 1 is not rare: weight 1, and its state stays."""
    generator = np.random.default_rng(0)
    balancer = GradientBalancer(3, GAINS, 0.5, 3.0).double()
    controllers, sums, rare = [Controller() for _ in range(3)], np.zeros(3), [1.0, 0.0, 1.0]
    outputs = []
    for _ in range(5):
        logits = torch.tensor(generator.normal(size=(8, 3)) * 2)
        labels = torch.tensor(generator.choice(3, size=8, p=[0.7, 0.2, 0.1]))
        outputs = [c.step(s) if r else 0.0 for c, s, r in zip(controllers, sums, rare, strict=True)]
        positive = np.eye(3)[labels.numpy()]
        up, down = weight(np.array(outputs)), weight(-np.array(outputs))
        gradient = hooked(logits, labels, positive * up + (1 - positive) * down)
        given = logits[:, None].requires_grad_()
        balancer(given, labels, torch.tensor(rare)).backward()
        torch.testing.assert_close(given.grad[:, 0], gradient)
        size = np.abs(gradient.numpy())
        sums += ((size * positive).sum(0) - (size * (1 - positive)).sum(0)) * rare
        np.testing.assert_allclose(balancer.difference.numpy(), sums, rtol=1e-12)
    np.testing.assert_allclose(balancer.output.numpy(), outputs, rtol=1e-12)
    assert np.abs(outputs)[[0, 2]].min() > 0.01
    assert balancer.errors[:, 1].eq(0).all()


def test_too_few_positives_get_more_weight():
    """A class without positives has gradients on negatives only: u > 0, and those weigh less."""
    balancer = GradientBalancer(2, GAINS, 0.5, 100.0)
    labels, rare = torch.zeros(8, dtype=torch.int64), torch.ones(2)
    for _ in range(3):
        balancer(torch.zeros(8, 1, 2), labels, rare)
    assert balancer.output[1] > 0 > balancer.output[0]
    assert balancer.weight_of(balancer.output)[1] > 1 > balancer.weight_of(-balancer.output)[1]
    assert balancer.weight_of(torch.zeros(1)).item() == 1.0


def test_prior_by_hand():
    """Norms 5, 2, 1: above the smallest 4, 1, 0. Standard scores, shifted and scaled: the same."""
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    assert norm_prior(rows).tolist() == pytest.approx([0.8, 0.2, 0.0])
    norms = np.array([5.0, 2.0, 1.0])
    scores = (norms - norms.mean()) / norms.std()
    shifted = scores - scores.min()
    assert norm_prior(rows).tolist() == pytest.approx((shifted / shifted.sum()).tolist(), abs=1e-7)
    assert norm_prior(torch.ones(4, 2)).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("covered", "expected"),
    [(0.0, [1, 1, 1, 1]), (0.5, [1, 1, 0, 1]), (0.8, [1, 0, 0, 1]), (0.95, [1, 0, 0, 0])],
)
def test_rare_classes_by_hand(covered, expected):
    """Shares 0, .2, .7, .1 in order .7 .2 .1 0: what comes before each is 0, .7, .9, 1."""
    prior = torch.tensor([0.0, 0.2, 0.7, 0.1])
    assert rare_classes(prior, covered=covered).tolist() == expected


def test_without_gains_it_is_one_vs_all_fedavg(lab, reference):
    """The weights are exactly 1 then, whoever is rare."""
    off = {"name": "fed_grab", "kp": 0.0, "ki": 0.0, "kd": 0.0}
    few = lab.run(strategy=off).checkpoint.tensors["broadcast"]
    every = lab.run(strategy={**off, "covered": 0.0}).checkpoint.tensors["broadcast"]
    balanced = reference(strategy={"name": "fed_grab", "covered": 0.0})
    after = balanced.checkpoint.tensors["broadcast"]
    names = [name for name in few if name.startswith(("heads.", "backbone."))]
    assert all(torch.equal(few[name], every[name]) for name in names)
    assert not all(torch.equal(few[name], after[name]) for name in names)


def test_controllers_stay_with_their_client_and_live_on(reference):
    """Nothing is watched in round 1; later rounds go on from what the client kept."""
    outcome = reference(strategy={"name": "fed_grab", "covered": 0.0}, clients_per_round=5)
    tensors = outcome.checkpoint.tensors
    names = [f"heads.head.balancer.{name}" for name in STATE]
    assert not set(names) & set(tensors["broadcast"])
    assert outcome.result["generic_model"] == "shared"
    states = outcome.personal
    assert all(sorted(states[cid]) == sorted(names) for cid in range(5))
    assert not torch.equal(states[0][names[0]], states[1][names[0]])
    assert tensors["private"]["fed_grab.rounds"].item() == 3
    first = reference(strategy={"name": "fed_grab", "covered": 0.0}, clients_per_round=5, rounds=1)
    assert all(first.personal[cid][name].eq(0).all() for cid in range(5) for name in names)


def test_the_server_averages_its_estimates(lab):
    """Priors 0.8, 0.2, 0 and 0, 0.2, 0.8: the mean is 0.4, 0.2, 0.4."""
    from fedlt.strategy import ServerState, Total

    strategy, none = FedGraB(), torch.zeros(3)
    private = {"fed_grab.prior": none, "fed_grab.rounds": torch.zeros(())}
    state = ServerState(0, {"fed_grab.rare": none}, private)
    for norms in ([5.0, 2.0, 1.0], [1.0, 2.0, 5.0]):
        weight = torch.diag(torch.tensor(norms))
        state = strategy.aggregate(state, Total({"heads.head.weight": 2 * weight}, 2.0, (0,), 1))
    assert state.private["fed_grab.prior"].tolist() == pytest.approx([0.4, 0.2, 0.4])


def test_another_loss_is_refused():
    assert "loss of its own" in FedGraB().refuses(FedLC())
