"""FedSAM against one step written out, and its steps in another strategy."""

from __future__ import annotations

import pytest
import torch
from written_out import assert_close, gradients, parameters, start


def test_one_step_by_hand(lab):
    """A full batch: w - eta grad L(w + rho g / |g|), with g = grad L(w)."""
    local = {"lr": 0.1, "momentum": 0.0, "batch_size": 10_000}
    worker, client = start(lab, {"name": "fedsam", "rho": 0.5}, local=local)
    _, other = start(lab, "fedavg", local=local)
    batch, before = next(other.batches(1)), parameters(other)
    g = gradients(other, batch)
    norm = torch.cat([value.flatten() for value in g.values()]).norm()
    state = other.model.state()
    other.model.load({**state, **{n: before[n] + 0.5 * g[n] / norm for n in g}})
    uphill = gradients(other, batch)
    assert_close(worker.train(client).sums, {n: before[n] - 0.1 * uphill[n] for n in g})
    assert any(not torch.allclose(uphill[n], g[n], rtol=0.05) for n in g)


@pytest.mark.parametrize("client", ["cross_entropy", "focal"])
def test_a_strategy_of_several_models_takes_sharpness_aware_steps(lab, reference, client):
    ditto = lab.run(strategy="ditto", client=client, local={"sam_rho": 0.1}, rounds=1)
    assert ditto.bits != reference(strategy="ditto", client=client, rounds=1).bits
