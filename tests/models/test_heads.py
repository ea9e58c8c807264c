"""Heads: closed forms, and what is trained."""

import math

import pytest
import torch

from fedlt.errors import FedltError
from fedlt.models import CosineHead, FixedHead, LinearHead


def test_linear_head_starts_with_row_norms_near_one_over_root_three() -> None:
    """Uniform on (-1/sqrt(D), 1/sqrt(D)) has variance 1/(3D): norm 0.577 (FedLoGe's logs)."""
    torch.manual_seed(0)
    norms = LinearHead(512, 200).weight.norm(dim=1)
    assert (norms - 1 / math.sqrt(3)).abs().max() < 0.05


def test_cosine_head_by_hand() -> None:
    """(3, 4) and (1, 0): cosine 0.6; and (0, -2): cosine -0.8; scale 10; lengths play no part."""
    head = CosineHead(2, 2, scale=10.0)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[5.0, 0.0], [0.0, -2.0]]))
    features = torch.tensor([[[3.0, 4.0]], [[30.0, 40.0]]])
    expected = torch.tensor([[[6.0, -8.0]], [[6.0, -8.0]]])
    torch.testing.assert_close(head(features), expected)
    assert head(torch.zeros(1, 1, 2)).isfinite().all()


def test_cosine_head_starts_with_unit_rows() -> None:
    norms = CosineHead(7, 5).weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(5))


def test_fixed_head_has_buffers_only_and_its_own_copy() -> None:
    weight, bias = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([0.5, 0.0])
    head = FixedHead(weight, bias)
    weight.zero_()
    assert list(head.parameters()) == []
    assert set(head.state_dict()) == {"weight", "bias"}
    assert head(torch.tensor([[[1.0, 1.0]]])).tolist() == [[[3.5, 1.0]]]
    assert set(FixedHead(weight).state_dict()) == {"weight"}


def test_gradient_passes_through_a_fixed_head() -> None:
    features = torch.ones(1, 1, 2, requires_grad=True)
    FixedHead(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))(features).sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [[[4.0, 6.0]]]


def test_mistakes_are_named() -> None:
    with pytest.raises(FedltError, match="scale must be finite and above 0, got 0"):
        CosineHead(2, 2, scale=0)
    with pytest.raises(FedltError, match=r"got \[\(2, 3\), \(3,\)\]"):
        FixedHead(torch.zeros(2, 3), torch.zeros(3))
