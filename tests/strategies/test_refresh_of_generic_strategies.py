"""A refreshed model is tuned on the plain loss: no term of a round is left in it."""

from __future__ import annotations

import pytest
import torch

from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker


def refreshed(lab, strategy):
    """Return a client's model after its task of a round and a refresh from the broadcast."""
    federation = lab.federation(strategy=strategy)
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    broadcast = server.state.broadcast
    update = worker.train(worker.client(1, 1, broadcast, fixed={}, personal={}))
    personal = {name: tensor.clone() for name, tensor in update.personal.items()}
    client = worker.client(1, 2, broadcast, fixed={}, personal=personal)
    own = federation.view.strategy.refresh(client, scope="all", epochs=2)
    assert own.keys() == personal.keys()
    return {name: tensor.clone() for name, tensor in client.model.state().items()}


@pytest.mark.parametrize("name", ["feddyn", "fedmoswa", "moon", "scaffold"])
def test_it_is_fedavgs(lab, name):
    found, expected = refreshed(lab, name), refreshed(lab, "fedavg")
    assert all(torch.equal(found[n], tensor) for n, tensor in expected.items())
