"""What weighted losses are divided by, against PyTorch's own ``weight=`` and against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import smooth_backbone
import torch
from torch.func import grad, vmap
from torch.nn import functional

from clients import CLIENTS, Mixup
from fedlt.flower.server_half import make_server_half
from fedlt.losses import (
    class_weighted_cross_entropy,
    effective_number_weights,
    ldam,
    ldam_margins,
    under_vmap,
    weighted_distillation,
)
from fedlt.methods.composition import Composed
from fedlt.optim.batch import Batch
from fedlt.worker.worker import Worker

CIFAR = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])  # imbalance 100
SMOOTH = f"{smooth_backbone.__file__}:smooth"
ORACLE = {"use": "global", "source": "oracle"}
# By weights: as PyTorch's mean with ``weight=``. By images: its sum over their number.
DIVISORS = {"ldam_drw": "weights", "fedir": "weights", "class_balanced": "images"}


def cifar_batch(size):
    """A batch of CIFAR-10-LT: labels as frequent as in the data, cosines of an untrained head."""
    draws = torch.Generator().manual_seed(size)
    labels = torch.multinomial(CIFAR.double(), size, replacement=True, generator=draws)
    return torch.rand(size, 10, generator=draws) * 2 - 1, labels


def published(cosines, labels):
    """LDAM-DRW as its authors have it: s (cos - m_y) into PyTorch's weighted cross-entropy."""
    margins = torch.tensor([0.5 * (50 / n) ** 0.25 for n in CIFAR.tolist()])
    raw = np.array([(1 - 0.9999) / (1 - 0.9999**n) for n in CIFAR.tolist()])
    weights = torch.tensor(raw / raw.sum() * 10, dtype=torch.float32)
    lost = torch.nn.functional.one_hot(labels, 10) * margins
    return functional.cross_entropy(30 * (cosines - lost), labels, weight=weights)


def ours(cosines, labels):
    margins = 30 * ldam_margins(CIFAR, max_margin=0.5)
    return ldam(30 * cosines, labels, margins, effective_number_weights(CIFAR, beta=0.9999))


@pytest.mark.parametrize("size", [128, 32, 7, 1])
def test_ldam_drw_is_that_of_its_authors(size):
    """Batches of all sizes, the last ones of an epoch too; the gradient as well."""
    cosines, labels = cifar_batch(size)
    assert ours(cosines, labels).item() == pytest.approx(published(cosines, labels).item())
    torch.testing.assert_close(grad(ours)(cosines, labels), grad(published)(cosines, labels))


@pytest.mark.parametrize("cosine", [0.0, 1.0])
def test_re_weighting_does_not_change_the_size_of_a_step(cosine):
    """Where all images of a batch have one loss l, the weighted mean of it is l.

    Dividing by the images instead makes it a sixth: sum of n w over sum of n is 0.17.
    """
    labels = torch.repeat_interleave(torch.arange(10), CIFAR // 10)
    weights = effective_number_weights(CIFAR, beta=0.9999)
    logits = cosine * torch.nn.functional.one_hot(labels, 10).float()
    plain = functional.cross_entropy(logits, labels).item()
    found = {
        by: class_weighted_cross_entropy(logits, labels, weights, divide_by=by).item()
        for by in ("weights", "images")
    }
    assert found["weights"] == pytest.approx(plain, rel=1e-5)
    share = float((CIFAR * weights).sum() / CIFAR.sum())
    assert found["images"] == pytest.approx(share * plain, rel=0.02)  # counts cut to a tenth
    assert share == pytest.approx(0.17, abs=0.01)


def test_a_batch_without_weight_gives_0_and_no_nan():
    logits = torch.ones(2, 3, requires_grad=True)
    weights = torch.tensor([0.0, 0.0, 1.0])
    loss = class_weighted_cross_entropy(logits, torch.tensor([0, 1]), weights, divide_by="weights")
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.eq(0).all()


def test_a_stack_of_clients_divides_each_by_its_own_weights():
    """Under vmap, weights and labels differ from client to client."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 4, generator=draws)
    labels = torch.randint(0, 4, (3, 6), generator=draws)
    weights = torch.rand(3, 4, generator=draws) + 0.1

    def loss(z, y, w):
        return class_weighted_cross_entropy(z, y, w, divide_by="weights")

    with under_vmap():
        found, slopes = (
            vmap(loss)(logits, labels, weights),
            vmap(grad(loss))(logits, labels, weights),
        )
    for z, y, w, value, slope in zip(logits, labels, weights, found, slopes, strict=True):
        leaf = z.clone().requires_grad_()
        expected = functional.cross_entropy(leaf, y, weight=w)
        expected.backward()
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
        torch.testing.assert_close(slope, leaf.grad)
        taught = weighted_distillation(z, y, w)  # the loss of DeiT-LT's DIST token
        assert taught.item() == pytest.approx(expected.item(), rel=1e-6)


# ---- the plugins, alone and under a data plugin


def late_client(lab, name, cid=0, **changes):
    """A client of the last round, in which every weighted loss weighs."""
    more = {"prior": ORACLE} if name == "fedir" else {}
    federation = lab.federation(client=name, rounds=10, **more, **changes)
    server = make_server_half(federation.view)
    state, counts = server.state, server.prior_counts([0])
    settings = {"fixed": state.fixed, "personal": {}, "global_counts": counts}
    return Worker(federation.shares).client(cid, 10, state.broadcast, **settings)


def weighing_client(lab, name):
    """The client with the most different weights of the classes that it holds."""
    clients = [late_client(lab, name, cid) for cid in range(5)]
    return max(clients, key=lambda c: c.tensors["class_weights"].unique().numel())


def rows_by_hand(client, logits, labels):
    """The losses of the images, streams averaged, without their weights."""
    shifted = logits.double().numpy().copy()
    if "margins" in client.tensors:
        margins = client.tensors["margins"].double().numpy()
        for row, label in zip(shifted, labels.tolist(), strict=True):
            row[:, label] -= margins[label]
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.array([row[:, y].mean() for row, y in zip(log_p, labels.tolist(), strict=True)])


@pytest.mark.parametrize("name", DIVISORS)
def test_plugins_divide_every_batch_as_their_papers_do(lab, name):
    """All batches of an epoch of every client, the ragged last ones too."""
    sizes, unequal = set(), 0
    for cid in range(5):
        client = late_client(lab, name, cid, local={"batch_size": 3})
        weights = client.tensors["class_weights"].double().numpy()
        unequal += len(set(weights[weights > 0])) > 1
        for batch in client.batches(1):
            sizes.add(len(batch.labels))
            logits = torch.randn(len(batch.labels), 2, len(weights))
            own = weights[batch.labels.numpy()]
            rows = own * rows_by_hand(client, logits, batch.labels)
            divisor = own.sum() if DIVISORS[name] == "weights" else len(own)
            found = client.plugin.loss(logits, batch, client).item()
            assert found == pytest.approx(rows.sum() / divisor, rel=1e-5)
    assert len(sizes) > 1
    assert unequal


@pytest.mark.parametrize("name", DIVISORS)
def test_image_weights_and_mixed_labels_compose_with_class_weights(lab, name):
    """sum f (s w l + (1 - s) w' l') over sum (s w + (1 - s) w'), or over the images."""
    client, draws = weighing_client(lab, name), torch.Generator().manual_seed(4)
    weights = client.tensors["class_weights"].double().numpy()
    batch = max(client.batches(1), key=lambda b: b.labels.unique().numel())
    labels, size = batch.labels, len(batch.labels)
    extra = {
        "weights": torch.rand(size, generator=draws) + 0.5,
        "mixed": labels[torch.randperm(size, generator=draws)],
        "share": torch.rand(size, generator=draws),
    }
    logits = torch.randn(size, 2, len(weights), generator=draws)
    pair = Composed(Mixup(), CLIENTS[name]())
    found = pair.loss(logits, replace(batch, extra=extra), client).item()
    factor, share = (extra[n].double().numpy() for n in ("weights", "share"))
    first, second = (weights[y.numpy()] for y in (labels, extra["mixed"]))
    rows = share * first * rows_by_hand(client, logits, labels)
    rows += (1 - share) * second * rows_by_hand(client, logits, extra["mixed"])
    sums = (share * first + (1 - share) * second).sum()
    divisor = sums if DIVISORS[name] == "weights" else size
    assert found == pytest.approx((factor * rows).sum() / divisor, rel=1e-5)


def test_mixup_is_the_mixture_of_both_weighted_means(lab):
    """As mixup's authors have it: s L(y) + (1 - s) L(y'), each by PyTorch's weighted mean.

    The partners are the same images in another order, so the sums of their weights agree.
    """
    client = weighing_client(lab, "fedir")
    batch = next(client.batches(1))
    order = torch.randperm(len(batch.labels), generator=torch.Generator().manual_seed(0))
    mixed, share = batch.labels[order], 0.3
    extra = {"mixed": mixed, "share": torch.full((len(order),), share)}
    logits = torch.randn(len(order), 1, 4)
    pair = Composed(Mixup(), CLIENTS["fedir"]())
    found = pair.loss(logits, Batch(batch.images, batch.labels, extra), client)
    weights = client.tensors["class_weights"]
    expected = share * functional.cross_entropy(logits[:, 0], batch.labels, weight=weights)
    expected += (1 - share) * functional.cross_entropy(logits[:, 0], mixed, weight=weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("client", ["ldam_drw", {"name": "mixup", "loss": "ldam_drw"}])
def test_stacked_clients_train_as_serial_ones_while_classes_are_weighed(lab, client):
    """Three rounds, the last one weighs; the last batches of the clients are of many sizes."""
    ends = []
    for engine in ("serial", "stacked"):
        changes = {"client": client, "rounds": 3, "model": {"name": SMOOTH}}
        outcome = lab.run(engine={"name": engine}, local={"batch_size": 5}, **changes)
        ends.append(outcome.groups["broadcast"])
    for name, tensor in ends[0].items():
        apart = (ends[1][name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-3)
        assert apart < 1e-4, name
