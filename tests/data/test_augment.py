"""Augmentation against a slow reference that pads, cuts and mirrors one sample after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlt.data.augment import augment, crop_padding, normalize
from fedlt.errors import FedltError


def _images(count, channels, size):
    generator = torch.Generator().manual_seed(1)
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _generator(seed=7):
    return torch.Generator().manual_seed(seed)


def _slow(images, scheme, generator):
    pad = {32: 4, 28: 3, 8: 1, 5: 1}[images.shape[2]]
    rows, columns = torch.randint(0, 2 * pad + 1, (2, len(images)), generator=generator).tolist()
    flips = [0] * len(images)
    if scheme == "crop_flip":
        flips = torch.randint(0, 2, (len(images),), generator=generator).tolist()
    result = []
    for image, row, column, flip in zip(images.numpy(), rows, columns, flips, strict=True):
        size = image.shape[1]
        wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        cut = wide[:, row : row + size, column : column + size]
        result.append(cut[:, :, ::-1] if flip else cut)
    return torch.from_numpy(np.stack(result))


@pytest.mark.parametrize("scheme", ["crop", "crop_flip"])
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (1, 8), (2, 5)])
@pytest.mark.parametrize("count", [1, 33])
def test_equals_the_slow_reference(scheme, channels, size, count):
    images = _images(count, channels, size)
    expected = _slow(images, scheme, _generator())
    before = images.clone()
    result = augment(images, scheme, _generator())
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)
    assert torch.equal(images, before)
    assert torch.equal(augment(images, scheme, _generator()), expected)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(channels_last, scheme, _generator()), expected)


def test_every_offset_and_both_flips_occur_equally_often():
    """One bright pixel in the middle lands on 3 x 3 places; chi-square over 9, 8 degrees: 26.1."""
    images = torch.zeros(9000, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 1
    places = augment(images, "crop_flip", _generator()).sum(0)[0, 3:6, 3:6].double()
    assert places.sum() == 9000
    assert ((places - 1000) ** 2 / 1000).sum() < 26.1
    images = torch.arange(8, dtype=torch.uint8).expand(2000, 1, 8, 8)
    mirrored = augment(images, "crop_flip", _generator())[:, 0, 4].diff(dim=1)[:, 3] == 255
    assert 900 < mirrored.sum() < 1100


def test_none_draws_nothing_and_returns_the_batch():
    images, generator = _images(3, 1, 8), _generator()
    state = generator.get_state()
    assert augment(images, "none", generator) is images
    assert torch.equal(generator.get_state(), state)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(FedltError, match="nearest: 'crop_flip'"):
        augment(_images(1, 1, 8), "crop-flip", _generator())


def test_padding_by_size():
    assert [crop_padding(size) for size in (32, 28, 8, 4)] == [4, 3, 1, 1]


def test_normalize():
    images = _images(4, 3, 8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    result = normalize(images, mean, std)
    expected = (images.double() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    torch.testing.assert_close(result, expected.float(), atol=1e-6, rtol=1e-6)
    assert result.dtype == torch.float32
    kept = normalize(images.contiguous(memory_format=torch.channels_last), mean, std)
    assert kept.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(kept, result)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_images():
    images = _images(64, 3, 32)
    expected = augment(images, "crop_flip", _generator())
    result = augment(images.cuda(), "crop_flip", _generator())
    assert torch.equal(result.cpu(), expected)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    on_gpu = normalize(result, mean.cuda(), std.cuda())
    torch.testing.assert_close(on_gpu.cpu(), normalize(expected, mean, std))
