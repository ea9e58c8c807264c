"""The draws of a client task: keyed by seed, round, client and epoch, and by nothing else."""

from __future__ import annotations

import torch

from fedlt.flower.server_half import make_server_half
from fedlt.rng import torch_generator
from fedlt.worker.worker import Worker

DROPOUT = """
from torch import nn


class Dropping(nn.Module):
    num_features, num_streams = 64, 1

    def __init__(self, **sizes):
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(x.flatten(1))).unsqueeze(1)
"""


def labels_seen(lab, *, cid=1, round_=1, epoch=0, **changes):
    """Return the labels of one epoch's batches, in order, and the client's own labels."""
    federation = lab.federation(**changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(cid, round_, server.state.broadcast, fixed={}, personal={})
    batches = list(client.plugin.batches(client, epoch))
    own = federation.observer.data.train_labels[federation.observer.data.partition.clients[cid]]
    sizes = [len(batch.labels) for batch in batches]
    return torch.cat([batch.labels for batch in batches]).tolist(), own, sizes


def test_batches_follow_the_documented_key(lab):
    for where in ({}, {"cid": 3}, {"round_": 2}, {"epoch": 1}, {"seed": 2}):
        seen, own, sizes = labels_seen(lab, **where)
        key = [where.get("round_", 1), where.get("cid", 1), where.get("epoch", 0)]
        generator = torch_generator(where.get("seed", 1), "batches", *key)
        order = torch.randperm(len(own), generator=generator).numpy()
        assert seen == own[order].tolist()
        assert set(sizes[:-1]) <= {8}


def test_a_salt_changes_the_batches_and_not_the_data(lab):
    plain, own, _ = labels_seen(lab)
    salted, same, _ = labels_seen(lab, rng_salt=1)
    assert own.tolist() == same.tolist()
    assert sorted(plain) == sorted(salted)
    assert plain != salted


def test_dropout_is_seeded_per_task(lab, tmp_path):
    """Libraries that insist on torch's own generator find it seeded by (seed, round, client)."""
    (tmp_path / "dropping.py").write_text(DROPOUT)
    federation = lab.federation(model={"name": f"{tmp_path / 'dropping.py'}:Dropping"})
    worker, server = Worker(federation.shares), make_server_half(federation.view)

    def weight(round_=1):
        client = worker.client(1, round_, server.state.broadcast, fixed={}, personal={})
        return worker.train(client).sums["backbone.layer.weight"].clone()

    first = weight()
    torch.manual_seed(12345)
    assert torch.equal(weight(), first)
    client = worker.client(2, 1, server.state.broadcast, fixed={}, personal={})
    worker.train(client)
    assert torch.equal(weight(), first)
    assert not torch.equal(weight(round_=2), first)


def test_evaluation_rounds_do_not_move_dropouts_draws(lab, tmp_path):
    (tmp_path / "dropping.py").write_text(DROPOUT)
    model = {"name": f"{tmp_path / 'dropping.py'}:Dropping"}
    often = lab.run(model=model).checkpoint.tensors["broadcast"]
    once = lab.run(model=model, evaluate={"every": 3}).checkpoint.tensors["broadcast"]
    assert all(torch.equal(often[name], tensor) for name, tensor in once.items())
