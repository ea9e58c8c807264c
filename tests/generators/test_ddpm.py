"""Diffusion models learnt by clients. The smallest networks: what is learnt is tested elsewhere."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedlt.errors import FedltError
from fedlt.generators import ddpm
from fedlt.generators.ddpm import make_classifier, trial
from fedlt.generators.federated_ddpm import FederatedDdpm
from fedlt.generators.filling import filled_pool, pool_place
from fedlt.generators.generator import Items, PoolRequest, tail_sources
from fedlt.generators.local_ddpm import LocalDdpm
from fedlt.generators.pool import load_pool
from fedlt.generators.pooled_oracle import PooledOracle
from fedlt.progress import Progress

SMALL = {"rounds": 2, "local_steps": 1, "batch_size": 4, "width": 8, "times": 10}
SMALL |= {"sample_steps": 4, "per_image": 2}
FIELDS = ("images", "labels", "levels", "sources", "scores")


@pytest.fixture
def extra():
    pytest.importorskip("diffusers", reason="needs fedlt[diffusion]")


def request_of(lab, **changes):
    preparation = lab.federation(client="cross_entropy", **changes).observer.preparation()
    return PoolRequest(preparation, tail_sources(preparation, 0.8), (0.0, 0.5))


def test_one_client_alone_learns_what_the_oracle_learns(lab, extra):
    """Bit for bit: federated averaging over one client is plain training on its images."""
    request = request_of(lab, partition={"num_clients": 1, "scheme": "iid"}, clients_per_round=1)
    kinds = (FederatedDdpm, LocalDdpm, PooledOracle)
    pools = [filled_pool(kind(**SMALL), request) for kind in kinds]
    for name in FIELDS:
        assert all(np.array_equal(getattr(pool, name), getattr(pools[0], name)) for pool in pools)
    assert len(pools[0]) == 2 * 2 * len(request.every_source)
    assert 0 <= pools[0].scores.min() <= pools[0].scores.max() <= 1


class StoppedError(Exception):
    """Training would begin."""


@pytest.mark.parametrize(
    ("kind", "clients"), [(FederatedDdpm, 3), (LocalDdpm, 5), (PooledOracle, 1)]
)
def test_training_is_announced_with_its_steps_and_time(lab, extra, monkeypatch, kind, clients):
    """Before it begins. Three of five clients a round; alone, each has rounds of its own.

    Two networks, 7 rounds of 4 steps a client. A step of both takes 90 seconds, one step of
    denoising an image half a second: at levels 0 and 0.5 an image takes 10 and 5 of 10 steps.
    """
    given = {**SMALL, "rounds": 7, "local_steps": 4, "times": 10, "sample_steps": 10}
    monkeypatch.setattr("fedlt.generators.ddpm.trial", lambda of, request: (90.0, 0.5))

    def stopped(*_):
        raise StoppedError

    monkeypatch.setattr(kind, "open", stopped)
    partition = {"scheme": "iid"}  # every client has images
    federation = lab.federation(client="cross_entropy", partition=partition, clients_per_round=3)
    lines = []
    progress = Progress()
    monkeypatch.setattr(progress, "note", lines.append)
    preparation = federation.observer.preparation(progress)
    request = PoolRequest(preparation, tail_sources(preparation, 0.9), (0.0, 0.5))
    sources = len(request.every_source)
    assert sources
    with pytest.raises(StoppedError):
        filled_pool(kind(**given), request)
    steps = 7 * 4 * clients
    minutes, rest = divmod(steps * 90 + round(sources * 2 * (10 + 5) * 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    assert f"makes {sources * 2 * 2} images before the first round" in lines[-1]
    assert f"7 rounds each, {2 * steps} steps of 4 images in all" in lines[-1]
    shown = f"{hours}:{minutes:02d}:{rest:02d}".removeprefix("0:")
    assert lines[-1].endswith(f"about {shown} here")


def test_the_trial_leaves_torchs_own_generator_alone_and_takes_time(lab, extra):
    before = torch.get_rng_state()
    step, denoising = trial(FederatedDdpm(**SMALL), request_of(lab))
    assert torch.equal(torch.get_rng_state(), before)
    assert 0 < denoising < 10
    assert 0 < step < 10


def test_the_images_of_a_client_alone_do_not_depend_on_others(lab, extra, tmp_path):
    """What a client makes is the same whatever the other clients hold."""
    request = request_of(lab)
    generator = LocalDdpm(**SMALL)
    groups = generator.groups(request)
    items = Items(0.5, groups[0].sources, np.zeros(len(groups[0].sources), dtype=np.int64))
    folders = [tmp_path / name for name in ("first", "second")]
    found = []
    for folder, images in zip(folders, (None, 0), strict=True):
        folder.mkdir()
        data = request.preparation.data
        if images is not None:
            changed = data.train_images.copy()
            others = np.setdiff1d(np.arange(len(changed)), groups[0].clients[0])
            changed[others] = images
            from dataclasses import replace

            request = replace(
                request,
                preparation=replace(request.preparation, data=replace(data, train_images=changed)),
            )
        found.append(generator.open(request, groups[0], folder, lambda: None)(items)[0])
    assert np.array_equal(*found)


def test_the_federations_run_goes_on_to_the_same_bits(lab, extra, monkeypatch):
    """A stop after the first round of learning, then one among the images."""
    request, generator = request_of(lab), FederatedDdpm(**SMALL, batch=8)
    whole = filled_pool(generator, request)
    place = pool_place(generator, request)
    place.unlink()
    for stop in (1, 5):
        seen = []

        def stopped(done, text="", *, seen=seen, stop=stop):
            seen.append(done)
            if len(seen) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(request.preparation.progress, "advance", stopped)
        with pytest.raises(KeyboardInterrupt):
            filled_pool(generator, request)
        assert not place.exists()
    monkeypatch.undo()
    again = filled_pool(generator, request)
    assert all(np.array_equal(getattr(again, n), getattr(whole, n)) for n in FIELDS)


def test_learning_leaves_torchs_own_generator_alone(lab, extra):
    before = torch.get_rng_state()
    filled_pool(FederatedDdpm(**SMALL | {"times": 11}), request_of(lab))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_with_the_federations_generator(lab, extra):
    generator = {"name": "federated_ddpm", **SMALL}
    client = {"name": "discl", "tail_below": 0.8, "generator": generator, "min_score": 0.0}
    first = lab.run(client=client)
    assert first.result["excluded"] == []
    assert lab.run(client=client).bits == first.bits


def test_a_missing_package_is_one_line_that_says_what_to_install(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    client = {"name": "discl", "tail_below": 0.8, "generator": {"name": "local_ddpm", "times": 99}}
    with pytest.raises(FedltError, match=r"pip install 'fedlt\[diffusion\]'") as error:
        lab.federation(client=client)
    assert "\n" not in str(error.value)


def test_sides_that_cannot_be_halved_are_one_line(lab, extra):
    generator = {"name": "federated_ddpm", **SMALL, "stages": 5}
    client = {"name": "discl", "tail_below": 0.8, "generator": generator}
    with pytest.raises(FedltError, match=r"5 stages need images whose sides are multiples of 16"):
        lab.federation(client=client)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 28), (3, 33)])
def test_the_classifier_takes_images_of_any_size(channels, side):
    assert make_classifier(channels, 7)(torch.zeros(2, channels, side, side)).shape == (2, 7)


def test_images_of_a_pool_can_be_used_as_a_file(lab, extra, tmp_path):
    request, generator = request_of(lab), FederatedDdpm(**SMALL)
    filled_pool(generator, request)
    assert len(load_pool(pool_place(generator, request)))


class Tenths(torch.nn.Module):
    """A network that answers a tenth of the class number, and keeps the classes it learns with."""

    def __init__(self, *sizes):
        super().__init__()
        self.config = SimpleNamespace(num_class_embeds=sizes[2] + 1)
        self.factor = torch.nn.Parameter(torch.tensor(0.1))
        self.learnt = []

    def forward(self, images, times, class_labels):
        if torch.is_grad_enabled():
            self.learnt += class_labels.tolist()
        values = self.factor.detach() * class_labels.float().view(-1, 1, 1, 1)
        return SimpleNamespace(sample=values.expand(images.shape) + 0 * self.factor)


@pytest.mark.parametrize(("share", "values"), [(0.0, {0, 1, 2, 3}), (0.999999, {4})])
def test_dropped_classes_are_learnt_as_none(lab, tmp_path, monkeypatch, share, values):
    """Class number 4 of the four 0 to 3 stands for none."""
    made = []
    monkeypatch.setattr(ddpm, "make_unet", lambda *sizes: made.append(Tenths(*sizes)) or made[-1])
    of = PooledOracle(**{**SMALL, "local_steps": 20}, drop_class=share)
    request = request_of(lab)
    of.open(request, of.groups(request)[0], tmp_path, lambda: None)
    assert set(made[0].learnt) == values
    assert len(made[0].learnt) >= 2 * 20 * 4


@pytest.mark.parametrize(("guidance", "found"), [(0.0, 0.2), (1.0, 0.0), (2.0, -0.2)])
def test_guidance_goes_away_from_the_answer_without_a_class(monkeypatch, guidance, found):
    """(1 + w) e(z, class) - w e(z): 0.2 for class 2 and 0.4 for none make 0.2 - 0.2 w."""
    seen = []

    def step(sources, noise, denoiser, **_):
        seen.append(denoiser(noise, 3))
        return sources

    monkeypatch.setattr(ddpm, "denoise", step)
    of, images = PooledOracle(**SMALL, class_guidance=guidance), torch.zeros(3, 1, 4, 4)
    unet, rater = Tenths(1, (4, 4), 4), make_classifier(1, 4)
    make = ddpm._DdpmSampler(of, unet, rater, images, torch.full((3,), 2), torch.ones(10), 1)
    make(Items(0.5, np.array([2, 0]), np.array([0, 1])))
    torch.testing.assert_close(seen[0], torch.full((2, 1, 4, 4), found))
