"""Mini-batches: every sample once, no lonely last sample, keyed order."""

from __future__ import annotations

import pytest
import torch

from fedlt.data.augment import augment
from fedlt.data.batches import batch_slices, epoch_order, make_batches


def _sizes(n, batch_size):
    slices = batch_slices(n, batch_size)
    covered = [position for part in slices for position in range(part.start, part.stop)]
    assert covered == list(range(n))
    return [part.stop - part.start for part in slices]


@pytest.mark.parametrize(
    ("n", "batch_size", "expected"),
    [
        (0, 4, []),
        (1, 4, [1]),
        (3, 4, [3]),
        (4, 4, [4]),
        (5, 4, [5]),
        (6, 4, [4, 2]),
        (9, 4, [4, 5]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_last_single_sample_joins_the_batch_before_it(n, batch_size, expected):
    assert _sizes(n, batch_size) == expected


def test_orders_are_permutations_and_keyed():
    first, again = (epoch_order(50, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, epoch_order(50, torch.Generator().manual_seed(2)))


def _batches(seed=1, **options):
    """Image i is filled with i, so that pixels tell which sample they came from."""
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 3, 8, 8).contiguous()
    settings = {
        "batch_size": 4,
        "augment": "none",
        "mean": (0.0, 0.5, 0.0),
        "std": (1.0, 0.5, 1.0),
    }
    return list(
        make_batches(
            images,
            torch.arange(10, 31),
            generator=torch.Generator().manual_seed(seed),
            **(settings | options),
        )
    )


def test_an_epoch_has_every_sample_of_the_client_once_with_its_position():
    batches = _batches()
    assert [len(rows) for _, rows in batches] == [4, 4, 4, 4, 5]
    rows = torch.cat([rows for _, rows in batches])
    assert sorted(rows.tolist()) == list(range(10, 31))
    assert rows.tolist() != sorted(rows.tolist())
    images = torch.cat([images for images, _ in batches])
    assert images.dtype == torch.float32
    torch.testing.assert_close(images[:, 0, 0, 0] * 255, rows.float())
    torch.testing.assert_close(images[:, 1, 0, 0], (rows / 255 - 0.5) / 0.5)


def test_the_same_key_gives_the_same_bits_and_another_does_not():
    first, again, other = (_batches(seed, augment="crop_flip") for seed in (1, 1, 2))
    for (a, la), (b, lb) in zip(first, again, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(la, lb)
    assert not torch.equal(first[0][1], other[0][1])


def test_augmentation_follows_the_order_from_the_same_generator():
    generator = torch.Generator().manual_seed(1)
    order = torch.arange(10, 31)[epoch_order(21, generator)]
    raw = order[:4].to(torch.uint8).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    expected = augment(raw, "crop_flip", generator)
    images, rows = _batches(augment="crop_flip")[0]
    assert torch.equal(rows, order[:4])
    torch.testing.assert_close(images[:, 0] * 255, expected[:, 0].float())
