"""Class priors: by hand, and in a softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlt.data.prior import log_prior
from fedlt.errors import FedltError

LOCAL = np.array([0, 1, 3])
GLOBAL = np.array([10, 0, 30])


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("local_masked", [-1e4, 0, np.log(3)]),
        ("local_floor1", [0, 0, np.log(3)]),
        ("global", [np.log(10), -1e4, np.log(30)]),
        ("mix", [np.log(0.8 * 0.25), np.log(0.2 * 0.25), np.log(0.2 * 0.75 + 0.8 * 0.75)]),
    ],
)
def test_by_hand(use, expected):
    """mix with gamma 0.2: local shares 0, 1/4, 3/4; global shares 1/4, 0, 3/4."""
    prior = log_prior(LOCAL, GLOBAL, use=use, gamma=0.2)
    assert prior.dtype == np.float32
    np.testing.assert_allclose(prior, expected, rtol=1e-6)


def test_mix_ends_at_local_and_global():
    for gamma, counts, use in ((1.0, LOCAL, "local_masked"), (0.0, GLOBAL, "global")):
        mixed = torch.from_numpy(log_prior(LOCAL, GLOBAL, use="mix", gamma=gamma)).softmax(0)
        alone = torch.from_numpy(log_prior(LOCAL, GLOBAL, use=use)).softmax(0)
        torch.testing.assert_close(mixed, alone)
        torch.testing.assert_close(mixed, torch.tensor(counts / counts.sum()).float())


def test_a_masked_class_gets_no_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    prior = torch.from_numpy(log_prior(LOCAL, None, use="local_masked"))
    torch.nn.functional.cross_entropy(logits + prior, torch.tensor([1, 2])).backward()
    assert (logits.grad[:, 0] == 0).all()
    assert (logits.grad[:, 1] != 0).all()


def test_an_empty_client_is_finite():
    empty = np.zeros(3, np.int64)
    for use in ("local_masked", "local_floor1", "global", "mix"):
        assert np.isfinite(log_prior(empty, GLOBAL, use=use)).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(FedltError, match="nearest: 'global'"):
        log_prior(LOCAL, GLOBAL, use="globl")
    with pytest.raises(FedltError, match=r"prior\.gamma"):
        log_prior(LOCAL, GLOBAL, use="mix", gamma=1.5)
    for use in ("global", "mix"):
        with pytest.raises(FedltError, match=r"prior\.source"):
            log_prior(LOCAL, None, use=use)
