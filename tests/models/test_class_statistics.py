"""Class sums and Gaussians against NumPy, CCVR's own equations, and distributions drawn from."""

import numpy as np
import pytest
import torch

from fedlt.flower.server_half import make_server_half
from fedlt.models.class_statistics import ClassGaussians, ClassSums, client_features
from fedlt.rng import torch_generator
from fedlt.worker.worker import Worker


def drawn(n=60, size=5, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, size, generator=generator) * 2 + 1
    labels = torch.randint(0, classes - 1, (n,), generator=generator)  # the last one is absent
    return features, labels


@pytest.mark.parametrize("moments", ["diag", "full"])
def test_sums_of_clients_give_the_pooled_mean_and_covariance(moments):
    """NumPy's own mean and unbiased covariance of the pooled rows, from three clients' sums."""
    features, labels = drawn()
    parts = [slice(0, 7), slice(7, 30), slice(30, 60)]
    sent = [ClassSums.of(features[p], labels[p], 4, moments).tensors() for p in parts]
    total = {name: sum(tensors[name] for tensors in sent) for name in sent[0]}
    found = ClassSums.from_tensors(total).gaussians()
    for label in range(3):
        rows = features[labels == label].double().numpy()
        covariance = np.cov(rows.T)
        expected = np.diag(covariance) if moments == "diag" else covariance
        np.testing.assert_allclose(found.means[label].numpy(), rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(found.covariances[label].numpy(), expected, atol=1e-4)
    assert found.counts[3] == 0
    assert not found.means[3].any()
    assert not found.covariances[3].any()


def test_covariance_is_that_of_the_papers_equation_5():
    """(n_k - 1) S_k summed, plus n_k m_k m_k^T summed, minus n m m^T; all over n - 1."""
    features, _ = drawn()
    rows = features.double()
    parts = [rows[:20], rows[20:33], rows[33:]]
    n, mean = len(rows), sum(part.sum(0) for part in parts) / len(rows)
    outer = sum(len(p) * torch.outer(p.mean(0), p.mean(0)) for p in parts)
    within = sum((len(p) - 1) * torch.cov(p.T) for p in parts)
    expected = (within + outer - n * torch.outer(mean, mean)) / (n - 1)
    found = ClassSums.of(features, torch.zeros(60, dtype=torch.int64), 2, "full").gaussians()
    torch.testing.assert_close(found.covariances[0], expected, atol=1e-4, rtol=1e-5)


def test_one_row_has_no_spread():
    found = ClassSums.of(torch.ones(1, 3), torch.tensor([1]), 2, "full").gaussians()
    rows, labels = found.sample(torch.tensor([0, 4]), torch_generator(0, "x"))
    assert torch.equal(rows, torch.ones(4, 3))
    assert labels.tolist() == [1] * 4


@pytest.mark.parametrize("full", [False, True])
def test_samples_have_the_given_moments(full):
    """20,000 rows: the standard error of a mean is 0.014, of a variance of 4 it is 0.04."""
    root = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    covariance = root @ root.T if full else torch.tensor([4.0, 1.25, 0.0], dtype=torch.float64)
    means = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    given = ClassGaussians(torch.ones(1), means, covariance[None])
    rows, _ = given.sample(torch.tensor([20_000]), torch_generator(1, "draw"))
    np.testing.assert_allclose(rows.mean(0).numpy(), means[0].numpy(), atol=0.07)
    found = torch.cov(rows.T) if full else rows.var(0)
    np.testing.assert_allclose(found.numpy(), covariance.numpy(), atol=0.2)
    assert bool((rows[:, 2] - 3).abs().max() < 1e-6)  # a direction without spread


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 2)])
def test_a_classs_rows_do_not_depend_on_the_others(shape):
    spread = torch.ones(shape) if len(shape) == 2 else torch.eye(2).expand(shape)
    given = ClassGaussians(torch.ones(3), torch.zeros(3, 2).double(), spread.double())
    draws = [given.sample(torch.tensor(numbers), torch_generator(1, "draw"))
             for numbers in ([5, 2, 4], [0, 7, 4])]  # fmt: skip
    assert [labels.tolist() for _, labels in draws] == [[0] * 5 + [1] * 2 + [2] * 4,
                                                        [1] * 7 + [2] * 4]  # fmt: skip
    assert torch.equal(draws[0][0][-4:], draws[1][0][-4:])
    assert not torch.equal(draws[0][0][5:7], draws[0][0][7:9])


def test_a_clients_features_are_those_of_its_images_in_evaluation_mode(lab):
    federation = lab.federation()
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    client = worker.client(1, 1, server.state.broadcast, fixed={}, personal={})
    features, labels = client_features(client.model, client.data, client.broadcast)
    model = worker.model.eval()
    data = federation.observer.data
    chosen = data.partition.clients[1]
    mean, std = (np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
    images = torch.from_numpy((data.train_images[chosen] / np.float32(255) - mean) / std)
    with torch.no_grad():
        expected = model.features(images).squeeze(1)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert labels.tolist() == data.train_labels[chosen].tolist()
    sums = ClassSums.of(features, labels, data.num_classes)
    assert sums.counts.tolist() == data.client_counts[1].tolist()
    assert sums.products is None
    torch.testing.assert_close(sums.sums.sum(0), expected.sum(0), rtol=1e-4, atol=1e-4)
