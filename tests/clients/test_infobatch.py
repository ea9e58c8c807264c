"""InfoBatch: who is left out, what makes up for it, and when it ends."""

from __future__ import annotations

import pytest
import torch

from clients.infobatch import image_losses, soft_prune
from fedlt.data.augment import normalize
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker

SIX = ("fedavg", "fedprox", "ditto", "fedrep", "fedrod", "fedloge")


def client_of(lab, *, round_=1, cid=1, **changes):
    federation = lab.federation(**{"client": "infobatch", "rounds": 8, **changes})
    state = make_server_half(federation.view).state
    return Worker(federation.shares).client(
        cid, round_, state.broadcast, fixed=state.fixed, personal={}
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_pruning_by_hand():
    """The mean is 2: the first two may go, and stand for 1 / (1 - 0.75) = 4 images each."""
    scores, seen = torch.tensor([0.0, 1.0, 2.0, 5.0]), set()
    for seed in range(200):
        kept, factors = soft_prune(scores, 0.75, generator(seed))
        assert {2, 3} <= set(kept.tolist())
        assert factors.tolist() == [4.0 if row < 2 else 1.0 for row in kept.tolist()]
        seen.add(tuple(kept.tolist()))
    assert seen == {(2, 3), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3)}


def test_the_weighted_sum_is_that_over_all_images_in_expectation():
    """Binomial: sum over 4000 draws of kept / (1 - r); 4 standard errors."""
    scores = torch.rand(30, generator=generator(1))
    values = torch.randn(30, generator=generator(2))
    sums = []
    for seed in range(4000):
        kept, factors = soft_prune(scores, 0.5, generator(seed))
        sums.append((values[kept] * factors).sum())
    found = torch.stack(sums)
    assert abs(found.mean() - values.sum()) < 4 * found.std() / len(found) ** 0.5


def test_equal_losses_leave_nobody_out():
    kept, factors = soft_prune(torch.ones(5), 0.9, generator())
    assert kept.tolist() == [0, 1, 2, 3, 4]
    assert factors.tolist() == [1.0] * 5


def test_losses_are_those_of_the_model_in_evaluation_mode(lab):
    client = client_of(lab)
    client.model.train()
    before = {n: t.clone() for n, t in client.model.state().items()}
    found = image_losses(client)
    assert client.model.training
    assert all(torch.equal(t, before[n]) for n, t in client.model.state().items())
    data = client.data
    client.model.eval()
    with torch.no_grad():
        images = normalize(data.images[data.indices], data.mean, data.std)
        logits = client.model(images).mean(dim=1)
    expected = logits.logsumexp(1) - logits.gather(1, data.labels[data.indices, None])[:, 0]
    torch.testing.assert_close(found, expected)


def test_an_epoch_is_shorter_and_every_hard_image_is_in_it(lab):
    client = client_of(lab)
    hard = int((image_losses(client) >= image_losses(client).mean()).sum())
    weights = torch.cat([batch.extra["weights"] for batch in client.plugin.batches(client, 0)])
    assert hard <= len(weights) < client.data.num_examples
    assert int((weights == 1).sum()) == hard
    assert set(weights.tolist()) == {1.0, 2.0}


def test_the_last_rounds_see_all_images(lab):
    """0.875 of 8 rounds: the last one."""
    for round_, whole in ((7, False), (8, True)):
        client = client_of(lab, round_=round_)
        batches = list(client.plugin.batches(client, 0))
        assert (sum(len(b.labels) for b in batches) == client.data.num_examples) == whole
        assert any(b.extra for b in batches) != whole


@pytest.mark.parametrize("strategy", SIX)
def test_the_six_strategies_train_on_it(lab, strategy):
    client = {"name": "infobatch", "loss": "balanced_softmax"}
    assert lab.run(strategy=strategy, client=client, rounds=1).result["excluded"] == []


def test_it_is_refused_where_clients_are_stacked(lab):
    with pytest.raises(FedltError, match=r"'stacked' cannot run .*client\.model.*'serial'"):
        lab.run(client="infobatch", engine={"name": "stacked"})
