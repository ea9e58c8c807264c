"""Mixup and CutMix: label mass, pairing, boxes, and batches of any size."""

from __future__ import annotations

import pytest
import torch

from fedlt.data.mixing import mix, paste, soft_targets

BOTH = {"mixup": 0.8, "cutmix": 1.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plain(count, side=8):
    """Return images whose pixels are their own number, and as many classes."""
    labels = torch.arange(count)
    return labels.float().view(-1, 1, 1, 1).expand(-1, 2, side, side).clone(), labels


def test_smoothing_has_a_tenth_on_all_classes():
    """0.1 / 4 = 0.025 off, 0.9 + 0.025 on."""
    targets = soft_targets(torch.tensor([2, 0]), 4, smoothing=0.1)
    expected = torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    torch.testing.assert_close(targets, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("kind", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_targets_are_the_shares_of_the_pixels(count, kind):
    """The image i is i everywhere: its mean over a mixed image is share i + (1 - share) (i - 1)."""
    images, labels = plain(count)
    for seed in range(20):
        mixed, targets, larger = mix(images, labels, count, generator(seed), **kind)
        torch.testing.assert_close(targets.sum(1), torch.ones(count))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ labels.float())
        assert torch.equal(larger, targets.argmax(1)) or targets.max() == 0.5
        assert (targets > 0).sum(1).max() <= 2
    assert torch.equal(images, plain(count)[0])


@pytest.mark.parametrize("count", [2, 5])
def test_nobody_is_mixed_with_itself(count):
    images, labels = plain(count)
    _, targets, _ = mix(images, labels, count, generator(3), mixup=5.0, cutmix=0.0)
    assert ((targets > 0).sum(1) == 2).all()


def test_one_image_and_no_alpha_are_the_identity():
    one, several = plain(1), plain(4)
    for (images, labels), alphas in ((one, BOTH), (several, {"mixup": 0.0, "cutmix": 0.0})):
        mixed, targets, larger = mix(images, labels, 4, generator(), **alphas)
        assert torch.equal(mixed, images)
        assert torch.equal(larger, labels)
        assert torch.equal(targets, torch.nn.functional.one_hot(labels, 4).float())


def test_a_whole_share_pastes_nothing_and_none_pastes_all():
    ones, zeros = torch.ones(2, 1, 6, 6), torch.zeros(2, 1, 6, 6)
    nothing, share = paste(ones, zeros, 1.0, (0.5, 0.5))
    assert share == 1.0
    assert torch.equal(nothing, ones)
    all_of_it, share = paste(ones, zeros, 0.0, (0.5, 0.5))
    assert share == 0.0
    assert all_of_it.sum() == 0


def test_a_box_is_cut_off_at_the_border():
    """1 - 0.75 = 0.25: half of each side, 4 x 4; about the corner 2 x 2 of it are inside."""
    mixed, share = paste(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), 0.75, (0.0, 0.0))
    assert mixed.sum() == 4
    assert share == 1 - 4 / 64


def test_both_kinds_are_drawn_and_shares_follow_their_law():
    """Var Beta(a, a) = 1 / (4 (2 a + 1)): 0.0962 for a = 0.8."""
    images, labels = plain(2)
    draws = generator(1)
    mixed = [mix(images, labels, 2, draws, **BOTH)[0] for _ in range(1000)]
    cuts = sum(set(one.unique().tolist()) <= {0.0, 1.0} for one in mixed)
    assert 450 < cuts < 550
    blends = [mix(images, labels, 2, draws, mixup=0.8, cutmix=0.0)[1] for _ in range(1000)]
    shares = torch.stack(blends)[:, 0, 0]
    assert shares.mean().item() == pytest.approx(0.5, abs=0.04)
    assert shares.var().item() == pytest.approx(0.0962, abs=0.012)


def test_the_same_generator_gives_the_same_views():
    images, labels = plain(5)
    one, other = (mix(images, labels, 5, generator(4), **BOTH) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
