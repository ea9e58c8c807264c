"""DP-SGD at a client: gradients of single images against torch, its noise, its accounts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("dp_accounting")

from fedlt.flower.server_half import make_server_half
from fedlt.privacy.accounting import Release, epsilon
from fedlt.worker.private_training import SampleGradients, train_on_samples
from fedlt.worker.worker import Worker

CNN = {"name": "cnn", "width": 4, "norm": "group"}
SAMPLE = {"mechanism": "sample", "norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-3}


def client_of(lab, **changes):
    """Return the client with the most images."""
    parties = lab.federation(**({"model": CNN, "privacy": SAMPLE} | changes))
    server = make_server_half(parties.view)
    cid = int(parties.observer.data.client_sizes.argmax())
    return Worker(parties.shares).first_client(server.state, cid, None)


def phase_of(client):
    """Return the phase that ``Client.train`` makes, caught on its way to the trainer."""
    caught = []

    def catch(client, phase):
        caught.append(phase)
        return {"loss": 0.0, "examples": 0.0, "steps": 0.0}

    trainer, client.trainer = client.trainer, catch
    client.train(client_objective)
    client.trainer = trainer
    return caught[0]


def client_objective(client, batch):
    return client.plugin.loss(client.model(batch.images), batch, client)


@pytest.mark.parametrize("norm", [None, 0.3])
def test_clipped_sums_are_those_of_torchs_own_gradients(lab, norm):
    """Image by image through ``loss.backward``, clipped and added in NumPy."""
    client = client_of(lab)
    phase = phase_of(client)
    batch = next(client.batches(1))
    total, loss, clipped = SampleGradients(client, phase).clipped_sum(batch, norm)
    parameters = dict(client.model.named_parameters())
    wanted = {name: np.zeros(parameters[name].shape) for name in phase.trained}
    losses, cut = 0.0, 0
    for image, label in zip(batch.images, batch.labels, strict=True):
        for parameter in parameters.values():
            parameter.grad = None
        single = type(batch)(image[None], label[None])
        value = client_objective(client, single)
        value.backward()
        losses += float(value.detach())
        grads = {n: parameters[n].grad.double().numpy() for n in phase.trained}
        length = np.sqrt(sum((g**2).sum() for g in grads.values()))
        factor = 1.0 if norm is None or length <= norm else norm / length
        cut += factor < 1
        for name, gradient in grads.items():
            wanted[name] += factor * gradient
    assert loss == pytest.approx(losses, rel=1e-5)
    assert clipped == cut
    for name, value in wanted.items():
        np.testing.assert_allclose(total[name].numpy(), value, atol=2e-5)


def test_without_noise_and_norm_a_whole_batch_is_a_plain_step(lab):
    """A batch of all images (rate 1): the step of SGD on the mean gradient, by torch."""
    local = {"batch_size": 1000, "epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.5}
    client = client_of(lab, local=local)
    phase = phase_of(client)
    start = {n: p.detach().clone() for n, p in client.model.named_parameters()}
    images, labels = [], []
    for batch in client.batches(1):
        images.append(batch.images)
        labels.append(batch.labels)
    for parameter in client.model.parameters():
        parameter.grad = None
    single = type(batch)(torch.cat(images), torch.cat(labels))
    client_objective(client, single).backward()
    wanted = {n: start[n] - 0.5 * p.grad for n, p in client.model.named_parameters()}
    client.model.load(start, list(start))
    done = train_on_samples(client, phase, norm=None, noise=0.0, sampling="poisson")
    assert done["steps"] == 1
    assert done["examples"] == client.data.num_examples
    for name, parameter in client.model.named_parameters():
        assert torch.allclose(parameter, wanted[name], atol=1e-6), name


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
def test_batches_are_drawn_anew_for_every_step(lab, sampling):
    client = client_of(lab, local={"batch_size": 4, "epochs": 20})
    done = train_on_samples(client, phase_of(client), norm=1.0, noise=0.0, sampling=sampling)
    steps = 20 * -(-client.data.num_examples // 4)
    assert done["steps"] == steps
    if sampling == "fixed":
        assert done["examples"] == 4 * steps
    else:
        assert done["examples"] == pytest.approx(4 * steps, rel=0.2)
        assert done["examples"] != 4 * steps


def test_the_noise_of_a_step(lab):
    """A learning rate of 1 and gradients that are clipped to nothing: the step is -noise / B."""
    local = {"batch_size": 4, "epochs": 1, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    client = client_of(lab, local=local, model={**CNN, "width": 16})
    start = {n: p.detach().clone() for n, p in client.model.named_parameters()}
    done = train_on_samples(client, phase_of(client), norm=1e-3, noise=1e5, sampling="fixed")
    moved = torch.cat(
        [(p.detach() - start[n]).flatten() for n, p in client.model.named_parameters()]
    )
    wanted = 1e5 * 1e-3 / 4 * np.sqrt(done["steps"])
    assert float(moved.std()) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(
    "engine", ["stacked", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])]
)
def test_every_engine_gives_serials_bits(lab, engine):
    changes = {"model": CNN, "privacy": SAMPLE, "rounds": 2}
    serial = lab.run(**changes, engine={"name": "serial"})
    other = lab.run(**changes, engine={"name": engine, "workers": 1})
    assert other.bits == serial.bits


def test_each_client_has_an_account_of_its_own(lab):
    """Accounts by hand: q = B / n_k, and n_k / B steps, rounded up, in each round attended."""
    local = {"batch_size": 8, "epochs": 2}
    found = lab.run(model=CNN, privacy=SAMPLE, local=local, rounds=1, clients_per_round=None)
    counts = np.load(found.directory.path / "evaluations/clients.npz")["client_counts"]
    sizes = counts.sum(axis=1).tolist()
    wanted = {
        n: epsilon(Release(1.0, min(8, n), n, "poisson"), 2 * -(-n // 8), 1e-3) for n in sizes
    }
    row = found.rows[-1]
    assert row["privacy/epsilon"] == pytest.approx(max(wanted.values()))
    assert row["privacy/epsilon_median"] == pytest.approx(np.median([wanted[n] for n in sizes]))
    assert len(set(wanted.values())) > 1
