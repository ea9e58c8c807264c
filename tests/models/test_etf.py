"""SSE-C: the simplex in closed form, autograd and torch's Adam as oracles, FedLoGe's goldens."""

import math
from itertools import combinations
from statistics import fmean, pvariance
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fedlt.errors import FedltError
from fedlt.machine.denormals import flushes_denormals
from fedlt.models import etf
from fedlt.models.etf import angle_variance, dense_etf, repair, sparse_etf, sparse_mask
from fedlt.rng import torch_generator


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / "cache"))


def masked_start(features: int, classes: int, sparsity: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch_generator(seed, "test_etf")
    mask = sparse_mask(features, classes, sparsity, generator)
    return dense_etf(features, classes, generator) * mask, mask


def etf_statistics(weight: Tensor) -> SimpleNamespace:
    """Measure the angles between all pairs of class vectors, in degrees, and their norms."""
    rows = list(weight.double())
    cosine = torch.nn.functional.cosine_similarity
    cosines = [float(cosine(one, two, dim=0)) for one, two in combinations(rows, 2)]
    angles = [math.degrees(math.acos(max(-1.0, min(1.0, value)))) for value in cosines]
    norms = [float(row.norm()) for row in rows]
    return SimpleNamespace(
        angle_mean=fmean(angles),
        angle_var=pvariance(angles),
        norm_mean=fmean(norms),
        norm_var=pvariance(norms),
    )


def reference_loss(weight: Tensor, norm: float) -> Tensor:
    """FedLoGe's loss as its sheet writes it: norm term, and angle to the nearest other class."""
    norms = torch.linalg.vector_norm(weight, dim=1)
    cosines = torch.nn.functional.cosine_similarity(weight[:, None], weight[None], dim=-1)
    cosines = cosines.masked_fill(torch.eye(len(weight), dtype=torch.bool), -1.0)
    nearest = cosines.amax(dim=1).clamp(-0.99999, 0.99999)
    return (norms - norm).square().sum() - torch.arccos(nearest).mean()


@pytest.mark.parametrize(("features", "classes"), [(512, 10), (100, 100), (16, 2)])
def test_dense_frame_is_a_simplex(features: int, classes: int) -> None:
    frame = dense_etf(features, classes, torch_generator(1, "t")).double()
    simplex = classes / (classes - 1) * (torch.eye(classes) - 1 / classes)
    torch.testing.assert_close(frame @ frame.T, simplex.double(), rtol=0, atol=1e-6)
    assert frame.sum(dim=0).abs().max() < 1e-6


@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.9])
def test_mask_has_exactly_the_zeros_asked_for(sparsity: float) -> None:
    mask = sparse_mask(33, 7, sparsity, torch_generator(1, "t"))
    assert mask.shape == (7, 33)
    assert int((~mask).sum()) == int(sparsity * 33 * 7)
    assert torch.equal(mask, sparse_mask(33, 7, sparsity, torch_generator(1, "t")))


def test_masking_leaves_norms_of_root_one_minus_sparsity() -> None:
    start, _ = masked_start(512, 100, 0.6, seed=1)
    statistics = etf_statistics(start)
    assert statistics.norm_mean == pytest.approx(math.sqrt(0.4), abs=0.005)
    assert statistics.angle_var == pytest.approx(5.5, abs=0.5)


def test_gradient_is_autograds() -> None:
    start, _ = masked_start(40, 10, 0.6, seed=2)
    weight = start.double().requires_grad_()
    (expected,) = torch.autograd.grad(reference_loss(weight, 0.1), weight)
    torch.testing.assert_close(etf._gradient(start.double(), 0.1), expected)


def test_repair_is_masked_adam() -> None:
    start, mask = masked_start(24, 6, 0.5, seed=3)
    start = start.double()
    weight = start.clone().requires_grad_()
    adam = torch.optim.Adam([weight], lr=1e-4)
    for _ in range(100):
        (weight.grad,) = torch.autograd.grad(reference_loss(weight, 0.1), weight)
        weight.grad *= mask
        adam.step()
    before = start.clone()
    torch.testing.assert_close(repair(start, mask, norm=0.1, steps=100), weight.detach())
    assert torch.equal(start, before)


def test_zeros_stay_zero_to_the_bit() -> None:
    start, mask = masked_start(64, 10, 0.6, seed=4)
    repaired = repair(start, mask, norm=0.1, steps=300)
    assert repaired[~mask].eq(0).all()
    assert repaired[mask].ne(0).all()


def test_repaired_frame_of_ten_classes() -> None:
    """FedLoGe's log for 512 x 10: angle 96.379 deg, variance 0.004 to 0.007, norm 0.10057."""
    weight = sparse_etf(512, 10, seed=1)
    statistics = etf_statistics(weight)
    assert weight.shape == (10, 512)
    assert weight.dtype == torch.float32
    assert int(weight.eq(0).sum()) == 3072
    assert statistics.angle_mean == pytest.approx(96.379, abs=0.005)
    assert statistics.angle_var**0.5 < 0.12
    assert statistics.norm_mean == pytest.approx(0.1006, abs=0.0005)
    assert statistics.norm_var < 1e-8
    assert reference_loss(weight, 0.1).item() == pytest.approx(-1.6806, abs=0.001)


def test_two_thousand_steps_are_nearly_there() -> None:
    """The sheet's short run for 512 x 10: norm 0.1031, angle mean within 0.01 deg of 96.3794."""
    statistics = etf_statistics(sparse_etf(512, 10, seed=1, steps=2000))
    assert statistics.norm_mean == pytest.approx(0.1031, abs=0.001)
    assert statistics.angle_mean == pytest.approx(math.degrees(math.acos(-1 / 9)), abs=0.01)


@pytest.mark.slow
def test_repaired_frame_of_a_hundred_classes() -> None:
    """FedLoGe's log for 512 x 100: 90.5778 deg, variance 0.042 to 0.044, norm 0.10024, -1.5759."""
    weight = sparse_etf(512, 100, seed=1)
    statistics = etf_statistics(weight)
    assert statistics.angle_mean == pytest.approx(90.578, abs=0.005)
    assert statistics.angle_var**0.5 == pytest.approx(0.21, abs=0.05)
    assert statistics.norm_mean == pytest.approx(0.1002, abs=0.0005)
    assert statistics.norm_var**0.5 < 1e-4
    assert reference_loss(weight, 0.1).item() == pytest.approx(-1.5759, abs=0.001)
    units = weight / weight.norm(dim=1, keepdim=True)
    assert (units @ units.T - 2 * torch.eye(100)).max() < -0.003


def test_without_sparsity_it_is_the_exact_simplex() -> None:
    weight = sparse_etf(12, 4, sparsity=0.0, norm=0.5, seed=1).double()
    simplex = 0.25 * 4 / 3 * (torch.eye(4) - 1 / 4)  # norm^2 C/(C-1) (I - 11^T/C)
    torch.testing.assert_close(weight @ weight.T, simplex.double(), rtol=0, atol=1e-6)


def test_same_inputs_same_bits_without_the_cache(monkeypatch) -> None:
    def fresh(name: str, seed: int) -> Tensor:
        monkeypatch.setenv("FEDLT_CACHE", f"/dev/null/{name}")
        return sparse_etf(64, 5, seed=seed, steps=2000)

    assert torch.equal(fresh("a", 1), fresh("b", 1))
    assert not torch.equal(fresh("a", 1), fresh("a", 2))


def test_who_asks_first_does_not_matter(monkeypatch, tmp_path) -> None:
    """A process that never trained keeps denormals; 32 features of 4 classes then differ."""
    found = []
    for flush in (False, True):
        monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / str(flush)))
        torch.set_flush_denormal(flush)
        found.append(sparse_etf(32, 4, seed=1))
        assert flushes_denormals() is flush
    assert torch.equal(found[0].view(torch.int32), found[1].view(torch.int32))


def test_too_few_features_are_refused_with_a_number_that_works() -> None:
    """16 x 10 fails to repair (the sheet: variance 5.8 deg^2); 32 features do."""
    with pytest.raises(FedltError, match=r"16 features are too few for 10 .*; 32 features work"):
        sparse_etf(16, 10, seed=1)
    assert angle_variance(sparse_etf(32, 10, seed=1)) < 1


def test_angle_variance_by_hand() -> None:
    """Rows (2, 0), (0, 4), (-6, 0): angles 90, 90, 180, of mean 120 and variance 1800."""
    rows = torch.tensor([[2.0, 0.0], [0.0, 4.0], [-6.0, 0.0]])
    assert angle_variance(rows) == pytest.approx(1800)


def test_mistakes_are_named() -> None:
    with pytest.raises(FedltError, match=r"got 8 features, fewer than the 10.*model\.width"):
        sparse_etf(8, 10, seed=1)
    with pytest.raises(FedltError, match="at least 2 classes"):
        sparse_etf(8, 1, seed=1)
    for sparsity in (1.0, -0.1, float("nan")):
        with pytest.raises(FedltError, match="sparsity must be in"):
            sparse_etf(32, 4, sparsity=sparsity, seed=1)
    with pytest.raises(FedltError, match="norm must be finite and above 0"):
        sparse_etf(32, 4, norm=0.0, seed=1)
