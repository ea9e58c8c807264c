"""Weak and strong views: a crop and a flip of its own for each, and what a run says of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clients import FedYoYo, Mdcs
from fedlt.check import Bench
from fedlt.client import Batch
from fedlt.data.augment import normalize
from fedlt.data.views import paired_views, to_pixels

MEAN, STD = torch.tensor([0.4]), torch.tensor([0.3])
SIDE = 8  # padded by 1: 9 places, each flipped or not
COUNT = 2000


def client_with(augment):
    data = SimpleNamespace(mean=MEAN, std=STD)
    return SimpleNamespace(data=data, local=SimpleNamespace(augment=augment))


def crops_of(image):
    """All 18 crops of an image, by NumPy: rows and columns 0 .. 2 of the padded one, flipped."""
    padded = np.pad(image, 1)
    cut = [padded[r : r + SIDE, c : c + SIDE] for r in range(3) for c in range(3)]
    return np.stack([*cut, *(one[:, ::-1] for one in cut)])


def both_views(origin, augment="crop_flip", seed=0):
    """The views of COUNT copies of one image, and the image; the strong kind changes nothing."""
    draws = torch.Generator().manual_seed(3)
    image = torch.randint(1, 256, (1, 1, SIDE, SIDE), generator=draws).to(torch.uint8)
    rows = torch.zeros(COUNT, dtype=torch.int64)
    images = normalize(image, MEAN, STD).repeat(COUNT, 1, 1, 1)
    batch = Batch(images, rows, origin=(image, rows) if origin else None)
    generator = torch.Generator().manual_seed(seed)
    client = client_with(augment)
    (found,) = paired_views(
        client.data, [batch], generator, augment=client.local.augment, degrees=0.0, strong="none"
    )
    assert found.labels.shape == (2 * COUNT,)
    return to_pixels(found.images, MEAN, STD)[:, 0].numpy(), image[0, 0].numpy()


@pytest.mark.parametrize("origin", [True, False])
def test_a_strong_view_is_cropped_anew(origin):
    """Every strong view is one of the image's 18 crops, each in a share of 1/18.

    Without an origin the batch's own images are cropped, here the plain image.
    """
    found, image = both_views(origin)
    weak, strong = found[:COUNT], found[COUNT:]
    assert (weak == image).all()
    which = (strong[:, None] == crops_of(image)).all(axis=(2, 3))  # (COUNT, 18)
    assert which.sum(axis=1).tolist() == [1] * COUNT
    spread = np.sqrt(COUNT * (1 / 18) * (17 / 18))
    assert np.abs(which.sum(axis=0) - COUNT / 18).max() < 4 * spread


def test_without_augmentation_nothing_is_cropped():
    found, image = both_views(True, augment="none")
    assert (found == image).all()


@pytest.mark.parametrize("plugin", ["mdcs", "fedyoyo"])
def test_weak_and_strong_crops_of_a_client_are_independent(lab, plugin, monkeypatch):
    """Strong views without further changes: as often the weak one's crop as chance has it.

    Of one image the two are alike in a share of 1/18, where it has no symmetry.
    """
    monkeypatch.setattr("fedlt.data.views.single_view", lambda images, *_, **__: images)
    settings = {"client": {"name": plugin, "rotation": 0.0}, "prior": {"use": "local_floor1"}}
    federation = lab.federation(**settings, local={"augment": "crop_flip"})
    client = Bench(federation).client(
        int(federation.observer.data.client_counts.sum(axis=1).argmax())
    )
    same = total = 0
    for _ in range(60):
        for batch in client.batches(1):
            weak, strong = batch.images.chunk(2)
            same += int((weak == strong).flatten(1).all(dim=1).sum())
            total += len(weak)
    assert total > 200
    assert same / total < 1 / 18 + 5 * np.sqrt(1 / 18 / total)


@pytest.mark.parametrize(
    "client",
    ["cross_entropy", "class_balanced_sampling", "square_root_sampling", "infobatch", "discl"],
)
def test_data_plugins_say_which_images_a_batch_was_made_of(lab, client):
    """Without augmentation the images are their pixels, normalised; DisCL's synthetic ones too."""
    client = Bench(lab.federation(client=client)).client(0)
    for batch in client.batches(1):
        expected = normalize(batch.pixels, client.data.mean, client.data.std)
        assert torch.equal(batch.images, expected)
        assert replace(batch, extra={}).origin is batch.origin


def test_a_mixture_has_no_pixels(lab):
    batch = next(Bench(lab.federation(client="mixup")).client(0).batches(1))
    assert batch.pixels is None


# ---- what a run says


@pytest.mark.parametrize(
    ("client", "augment", "is_said"),
    [
        ("mdcs", "none", "the turn alone (up to 15 degrees)"),
        ({"name": "mdcs", "rotation": 0.0}, "none", "the image itself"),
        ({"name": "class_balanced_sampling", "loss": "mdcs"}, "none", "the turn alone"),
        ("fedyoyo", "none", "the turn alone"),
        ("mdcs", "crop", ""),
        ("focal", "none", ""),
    ],
)
def test_a_run_says_when_the_weak_view_is_the_turn_alone(lab, client, augment, is_said):
    federation = lab.federation(client=client, local={"augment": augment})
    notes = [note for note in federation.observer.notes() if "weak view" in note]
    assert bool(notes) == bool(is_said)
    if notes:
        assert f"local.augment is none, so that the weak view is {is_said}" in notes[0]
        assert "\n" not in notes[0]


def test_the_plugins_share_these_views():
    assert Mdcs().rotation == FedYoYo().rotation == 15.0
    assert Mdcs().strong == FedYoYo().strong == "autoaugment"
