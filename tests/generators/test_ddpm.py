"""Diffusion models learnt by clients. The smallest networks: what is learnt is tested elsewhere."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from fedlt.data.pool import load_pool
from fedlt.errors import FedltError
from fedlt.generators.base import Items, Request, tail_sources
from fedlt.generators.ddpm import make_classifier
from fedlt.generators.federated_ddpm import FederatedDdpm
from fedlt.generators.filling import filled_pool, pool_place
from fedlt.generators.local_ddpm import LocalDdpm
from fedlt.generators.pooled_oracle import PooledOracle

SMALL = {"rounds": 2, "local_steps": 1, "batch_size": 4, "width": 8, "times": 10}
SMALL |= {"sample_steps": 4, "per_image": 2}
FIELDS = ("images", "labels", "levels", "sources", "scores")


@pytest.fixture
def extra():
    pytest.importorskip("diffusers", reason="needs fedlt[diffusion]")


def request_of(lab, **changes):
    setting = lab.federation(client="cross_entropy", **changes).setting()
    return Request(setting, tail_sources(setting, 0.8), (0.0, 0.5))


def test_one_client_alone_learns_what_the_oracle_learns(lab, extra):
    """Bit for bit: federated averaging over one client is plain training on its images."""
    request = request_of(lab, partition={"num_clients": 1, "scheme": "iid"}, clients_per_round=1)
    kinds = (FederatedDdpm, LocalDdpm, PooledOracle)
    pools = [filled_pool(kind(**SMALL), request) for kind in kinds]
    for name in FIELDS:
        assert all(np.array_equal(getattr(pool, name), getattr(pools[0], name)) for pool in pools)
    assert len(pools[0]) == 2 * 2 * len(request.every_source)
    assert 0 <= pools[0].scores.min() <= pools[0].scores.max() <= 1


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
        data = request.setting.data
        if images is not None:
            changed = data.train_images.copy()
            others = np.setdiff1d(np.arange(len(changed)), groups[0].clients[0])
            changed[others] = images
            from dataclasses import replace

            request = replace(
                request, setting=replace(request.setting, data=replace(data, train_images=changed))
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

        monkeypatch.setattr(request.setting.progress, "advance", stopped)
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
