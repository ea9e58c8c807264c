"""Batched operations on 8-bit images against torchvision's, image by image; and the policy."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import functional as reference
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from fedlt.data import pixels, views
from fedlt.data.augment import normalize
from fedlt.data.autoaugment import CIFAR10_POLICY, autoaugment


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(channels, size=32, count=6):
    """Return images of several widths of values, one of them flat."""
    drawn = torch.rand(count, channels, size, size, generator=seeded(1))
    spread = torch.linspace(0, 1, count).view(-1, 1, 1, 1)
    return (drawn * spread * 200 + 30).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("brightness", reference.adjust_brightness),
        ("contrast", reference.adjust_contrast),
        ("color", reference.adjust_saturation),
        ("sharpness", reference.adjust_sharpness),
    ],
)
def test_blends(name, other, channels):
    images, factors = images_of(channels), torch.tensor([0.1, 0.5, 0.8, 1.0, 1.4, 1.9])
    found = getattr(pixels, name)(images, factors)
    for one, image, factor in zip(found, images, factors.tolist(), strict=True):
        expected = other(image, factor)
        assert (one.int() - expected.int()).abs().max() <= 1  # rounding


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("name", ["autocontrast", "equalize", "invert"])
def test_tables(name, channels, size):
    images = images_of(channels, size)
    expected = torch.stack([getattr(reference, name)(image) for image in images])
    assert torch.equal(getattr(pixels, name)(images), expected)


def test_bits_and_thresholds():
    images, bits = images_of(3), [8, 7, 6, 5, 4, 4]
    found = pixels.posterize(images, torch.tensor(bits))
    assert torch.equal(
        found, torch.stack([reference.posterize(i, b) for i, b in zip(images, bits, strict=True)])
    )
    thresholds = [255.0, 198.3, 141.7, 113.3, 28.3, 0.0]
    found = pixels.solarize(images, torch.tensor(thresholds))
    both = zip(images, thresholds, strict=True)
    assert torch.equal(found, torch.stack([reference.solarize(i, t) for i, t in both]))


@pytest.mark.parametrize("fill", [0, 128])
def test_warps(fill):
    images, amounts = images_of(3), [-0.3, -0.1, 0.0, 0.07, 0.2, 0.3]
    values = torch.tensor(amounts)
    rest = {"interpolation": InterpolationMode.NEAREST, "fill": [fill] * 3}
    found = {
        "turn": pixels.rotation(100 * values),
        "shift": pixels.translation(40 * values, -20 * values),
        "shear": pixels.shear_y(values, 32),
    }
    expected = {
        "turn": lambda i, v: reference.rotate(i, 100 * v, **rest),
        "shift": lambda i, v: reference.affine(
            i, 0.0, [int(40 * v), int(-20 * v)], 1.0, [0.0, 0.0], **rest
        ),
        "shear": lambda i, v: reference.affine(
            i, 0.0, [0, 0], 1.0, [0.0, math.degrees(math.atan(v))], center=[0, 0], **rest
        ),
    }
    for name, matrices in found.items():
        warped = pixels.warp(images, matrices, fill=fill)
        for one, image, amount in zip(warped, images, values.tolist(), strict=True):
            same = (one == expected[name](image, amount)).float().mean()
            assert same > 0.99, (name, amount)  # a source half-way between two pixels may differ


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("fill", [0, 128])
def test_cubic_shears_are_those_of_the_imaging_library(channels, size, fill):
    """Pillow's affine transform with BICUBIC, (1, 0, 0, slope, 1, 0), to the last bit but for few.

    A source within rounding of a pixel's edge may fall on either side of it.
    """
    images = torch.randint(0, 256, (7, channels, size, size), generator=seeded(2)).to(torch.uint8)
    slopes = torch.tensor([-0.3, -0.2667, -0.1, 0.0, 0.07, 0.2333, 0.3], dtype=torch.float64)
    found = pixels.warp(images, pixels.shear_y(slopes, size), fill=fill, bicubic=True)
    for one, image, slope in zip(found, images, slopes.tolist(), strict=True):
        apart = (one.int() - sheared(image, slope, fill).int()).abs()
        assert apart.le(1).float().mean() > 0.999, slope
    assert torch.equal(found[3], images[3])


def test_a_cubic_by_hand():
    """Half-way between 20 and 40 in the row 10, 20, 40, 80: (-10 + 5 (20 + 40) - 80) / 8 = 26.25.

    With a = -1 the weights there are -1, 5, 5 and -1 eighths; the value is cut to 26.
    """
    row = torch.tensor([10, 20, 40, 80], dtype=torch.uint8).repeat(3, 1)[None, None]
    matrix = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    found = pixels.warp(row, matrix, fill=7, bicubic=True)[0, 0]
    assert found[:, 1].tolist() == [26] * 3
    assert found[:, 3].tolist() == [7] * 3  # 3.5 is beyond the last pixel's edge
    assert pixels.warp(row, matrix * torch.tensor([1, 1, 0]), fill=7, bicubic=True).equal(row)


def sheared(image, slope, fill):
    """The image after Pillow's cubic shear."""
    picture = to_pil_image(image)
    colour = fill if len(image) == 1 else (fill,) * 3
    matrix = (1, 0, 0, slope, 1, 0)
    cubic = Image.Resampling.BICUBIC
    changed = picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, cubic, fillcolor=colour
    )
    return pil_to_tensor(changed)


def test_cutout_is_a_black_square_of_half_the_side():
    centres = torch.tensor([[0.5, 0.0, 0.99], [0.5, 0.0, 0.5]])
    black = pixels.cutout(torch.ones(3, 2, 32, 32, dtype=torch.uint8), centres).eq(0)
    assert black.sum(dim=(2, 3)).tolist() == [[256, 256], [64, 64], [144, 144]]
    assert black[0, 0, 8:24, 8:24].all()


# ---- AutoAugment


def test_the_policy_is_the_published_one():
    other = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    for own, pair in zip(CIFAR10_POLICY, other, strict=True):
        for (name, chance, level), (title, p, magnitude) in zip(own, pair, strict=True):
            assert name.replace("_", "") == title.lower()
            assert chance == p
            assert magnitude is None or level == magnitude


def test_each_image_gets_one_sub_policy():
    """Second steps alone or none, first steps alone, both: each with torchvision's operation.

    Shears alone are Pillow's with a cubic, as in the code of MDCS.
    """
    images = images_of(3, count=12).repeat(10, 1, 1, 1)
    found, generator = autoaugment(images, seeded(4)), seeded(4)
    chosen = torch.randint(0, 25, (120,), generator=generator).tolist()
    chances = torch.rand((2, 120), generator=generator)
    signs = (torch.randint(0, 2, (2, 120), generator=generator) * 2 - 1).tolist()
    transform = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=[128.0] * 3)
    space = transform._augmentation_space(10, (32, 32))
    exact = 0
    for number, policy in enumerate(chosen):
        image = images[number]
        for step, (title, p, level) in enumerate(transform.policies[policy]):
            if chances[step, number] < p:
                magnitudes, signed = space[title]
                size = float(magnitudes[level]) if level is not None else 0.0
                size *= signs[step][number] if signed else 1
                image = applied(image, title, size)
        exact += int((image.int() - found[number].int()).abs().le(2).float().mean() > 0.98)
    assert exact >= 118  # rounding by one, before a table that spreads it


def applied(image, title, size):
    from torchvision.transforms.autoaugment import _apply_op

    if title == "ShearY":
        return sheared(image, size, 128)
    return _apply_op(image, title, size, InterpolationMode.NEAREST, [128.0] * 3)


def test_draws_are_a_function_of_the_generator_and_nothing_is_written():
    images = images_of(1, size=8)
    before = images.clone()
    assert torch.equal(autoaugment(images, seeded(3)), autoaugment(images, seeded(3)))
    assert not torch.equal(autoaugment(images, seeded(3)), autoaugment(images, seeded(5)))
    assert torch.equal(images, before)


# ---- views of normalised batches

MEAN, STD = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])


def test_pixels_come_back_exactly():
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    assert torch.equal(views.to_pixels(normalize(images, MEAN, STD), MEAN, STD), images)


def test_a_turn_is_within_its_range_and_none_is_none():
    """A black image with one bright pixel 10 to the right of the middle, turned by up to 15."""
    images = torch.zeros(50, 3, 33, 33, dtype=torch.uint8)
    images[:, :, 16, 25:28] = 255
    batch = normalize(images, MEAN, STD)
    assert views.turned(batch, MEAN, STD, seeded(), degrees=0) is batch
    found = views.to_pixels(views.turned(batch, MEAN, STD, seeded(), degrees=15.0), MEAN, STD)
    rows = found[:, 0].eq(255).nonzero()[:, 1]
    assert rows.min() >= 16 - 3
    assert rows.max() <= 16 + 3
    assert rows.min() < 15
    assert rows.max() > 17


def test_a_strong_view_has_a_black_square():
    images = torch.full((40, 3, 32, 32), 100, dtype=torch.uint8)
    batch = normalize(images, MEAN, STD)
    found = views.strong_view(batch, MEAN, STD, seeded())
    black = views.to_pixels(found, MEAN, STD).eq(0).all(dim=1).flatten(1).sum(dim=1)
    assert black.min() >= 64
    assert torch.equal(views.strong_view(batch, MEAN, STD, seeded()), found)
