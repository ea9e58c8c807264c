"""ImageNet's augmentation: against torchvision with fixed parameters, and its draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedlt.data.augment import augment
from fedlt.data.random_crops import RATIO, draw_boxes, draw_jitter, jittered, resized_crops

torchvision = pytest.importorskip("torchvision.transforms.v2.functional")


def images(count=5, height=20, width=32, channels=3):
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), generator=draws).byte()


@pytest.mark.parametrize("size", [(20, 32), (32, 20), (9, 9)])
def test_crops_are_torchvisions(size):
    """Pixels differ from torchvision's by one level at most: it may resize in integers."""
    batch = images(6, *size)
    boxes = draw_boxes(6, *size, torch.Generator().manual_seed(1))
    found = resized_crops(batch, boxes)
    assert found.dtype == torch.uint8
    for image, (top, left, height, width), crop in zip(batch, boxes.tolist(), found, strict=True):
        wanted = torchvision.resized_crop(image, top, left, height, width, list(size))
        assert (crop.int() - wanted.int()).abs().max() <= 1
        assert (crop.int() - wanted.int()).abs().float().mean() < 0.6


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_in_every_order(channels):
    orders = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    batch = images(6, channels=channels)
    factors = 0.6 + 0.8 * torch.rand((3, 6), generator=torch.Generator().manual_seed(2))
    found = jittered(batch, factors, orders)
    changes = (
        torchvision.adjust_brightness, torchvision.adjust_contrast, torchvision.adjust_saturation,
    )  # fmt: skip
    for position, order in enumerate(orders.tolist()):
        wanted = batch[position]
        for number in order:
            wanted = changes[number](wanted, float(factors[number, position]))
        apart = (found[position].int() - wanted.int()).abs()
        assert apart.max() <= 1
        assert (apart > 0).float().mean() < 0.01


def test_the_whole_image_without_changes_is_the_image():
    """Scale 1 and ratio 1 on a square: the resize changes nothing, nor does a factor of 1."""
    batch = images(3, 16, 16)
    boxes = torch.tensor([[0, 0, 16, 16]] * 3)
    assert torch.equal(resized_crops(batch, boxes), batch)
    assert torch.equal(jittered(batch, torch.ones(3, 3), torch.tensor([[0, 1, 2]] * 3)), batch)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (16, 40), (40, 16)])
def test_boxes_lie_in_the_image_with_areas_and_ratios_in_range(height, width):
    boxes = draw_boxes(4000, height, width, torch.Generator().manual_seed(3)).double()
    top, left, h, w = boxes.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    areas = h * w / (height * width)
    assert areas.min() > 0.05  # 0.08, but sides are whole pixels
    if (
        height == width
    ):  # nearly every first draw fits: areas even, mean (0.08 + 1) / 2 less misfits
        assert 0.4 < areas.mean() < 0.56
        assert (w / h).log().mean().abs() < 0.02
        assert (top == 0).any()
        assert (top + h == height).any()


def test_an_image_too_long_for_every_crop_gives_its_middle():
    """2 x 100 pixels: crops of ratio 4:3 have at most 2 x 3 pixels, 3 % of the area."""
    boxes = draw_boxes(5, 2, 100, torch.Generator().manual_seed(0))
    assert boxes.tolist() == [[0, (100 - round(2 * RATIO[1])) // 2, 2, round(2 * RATIO[1])]] * 5


def test_the_draws_are_keyed_and_leave_the_images_alone():
    batch = images(8, 12, 12)
    kept = batch.clone()
    one, two, other = (
        augment(batch, "imagenet", torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(batch, kept)
    assert one.shape == batch.shape
    factors, orders = draw_jitter(3000, torch.Generator().manual_seed(0))
    assert math.isclose(float(factors.mean()), 1.0, abs_tol=0.02)
    assert (factors.min() >= 0.6) & (factors.max() <= 1.4)
    assert np.bincount(orders[:, 0].numpy()).min() > 900


@pytest.mark.slow
@pytest.mark.ray
def test_serial_and_ray_have_the_same_pixels(lab):
    changes = {"local": {"augment": "imagenet", "epochs": 2}}
    serial = lab.run(**changes)
    assert lab.run(**changes, engine={"name": "ray", "workers": 2}).bits == serial.bits
