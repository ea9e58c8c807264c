"""Pools are made once, go on after a stop, and are refused in one line where they cannot be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from clients import DisCL
from fedlt.cli import main
from fedlt.config import to_yaml
from fedlt.errors import FedltError
from fedlt.generators import GENERATORS, Generator, make_generator
from fedlt.generators.federated_ddpm import FederatedDdpm
from fedlt.generators.filling import filled_pool, pool_place
from fedlt.generators.generator import PoolRequest, tail_sources
from fedlt.generators.local_ddpm import LocalDdpm
from fedlt.generators.pool import load_pool
from fedlt.generators.pooled_oracle import PooledOracle
from fedlt.generators.stable_diffusion import read_prompts
from fedlt.progress import Progress


@dataclass(frozen=True)
class Noisy(Generator):
    """Mixes sources with noise; counts how often it is asked, and stops on demand."""

    name: ClassVar[str] = "noisy"
    least_score: ClassVar[float] = 0.5
    per_image: int = 2
    batch: int = 8
    score: float = 1.0
    asked: ClassVar[list[str]] = []
    stop_after: ClassVar[int] = 0

    def rounds_of(self, group):
        return 2

    def open(self, request, group, folder, tick):
        type(self).asked.append("open")
        data = request.preparation.data

        def make(items):
            if self.stop_after and self.asked.count("make") == self.stop_after:
                raise KeyboardInterrupt
            type(self).asked.append("make")
            noise = [
                np.random.default_rng([s, c])
                for s, c in zip(items.sources, items.copies, strict=True)
            ]
            size = data.train_images.shape[1:]
            noise = np.stack([rng.integers(0, 256, size) for rng in noise])
            images = items.level * data.train_images[items.sources] + (1 - items.level) * noise
            return images.astype(np.uint8), np.full(len(images), self.score)

        for _ in range(2):
            tick()
        return make


class Told(Progress):
    def __init__(self):
        self.lines, self.rounds = [], []

    def start(self, total_rounds, done=0):
        self.total = total_rounds

    def advance(self, round, text=""):
        self.rounds.append(round)

    def note(self, line):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def noisy(monkeypatch, tmp_path):
    monkeypatch.setitem(GENERATORS, "noisy", Noisy)
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / "cache"))
    Noisy.asked.clear()
    monkeypatch.setattr(Noisy, "stop_after", 0)
    return Noisy


def request_of(lab, progress=None, *, levels=(0.1, 0.5), **changes):
    preparation = lab.federation(client="cross_entropy", **changes).observer.preparation(progress)
    return PoolRequest(preparation, tail_sources(preparation, 0.8), levels)


def same(first, second):
    names = ("images", "labels", "levels", "sources", "scores")
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in names)


def test_a_pool_is_made_once_and_says_what_it_is_like(lab):
    told = Told()
    request = request_of(lab, told)
    pool = filled_pool(Noisy(), request)
    sources = request.every_source
    assert len(pool) == 2 * 2 * len(sources)
    data = request.preparation.data
    assert set(pool.sources.tolist()) == set(data.pool_indices[sources].tolist())
    assert told.rounds[-1] == told.total
    assert told.rounds == sorted(told.rounds)
    assert sum("similarity to the source" in line for line in told.lines) == 2
    Noisy.asked.clear()
    assert same(filled_pool(Noisy(), request), pool)
    assert not Noisy.asked
    kept = sorted(path.name for path in Path(os.environ["FEDLT_CACHE"]).iterdir())
    assert kept == [pool_place(Noisy(), request).name]  # no part, no lock is left


@pytest.mark.parametrize(
    "changes", [{"seed": 2}, {"levels": (0.1, 0.3)}, {"data": {"imbalance_factor": 4}}]
)
def test_other_inputs_are_another_pool(lab, changes):
    assert pool_place(Noisy(), request_of(lab)) != pool_place(Noisy(), request_of(lab, **changes))
    assert pool_place(Noisy(), request_of(lab)) == pool_place(Noisy(), request_of(lab))
    assert pool_place(Noisy(), request_of(lab)) != pool_place(Noisy(score=0.7), request_of(lab))


def test_a_stopped_generation_goes_on_to_the_same_bits(lab, monkeypatch):
    request = request_of(lab)
    whole = filled_pool(Noisy(), request)
    place = pool_place(Noisy(), request)
    made = Noisy.asked.count("make")
    place.unlink()
    Noisy.asked.clear()
    monkeypatch.setattr(Noisy, "stop_after", 3)
    with pytest.raises(KeyboardInterrupt):
        filled_pool(Noisy(), request)
    assert not place.exists()
    monkeypatch.setattr(Noisy, "stop_after", 0)
    Noisy.asked.clear()
    damaged = next(place.with_suffix(".parts").rglob("1.npz"))
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert same(filled_pool(Noisy(), request), whole)
    assert Noisy.asked.count("make") == made - 3 + 1


def test_a_damaged_pool_is_made_again(lab):
    request = request_of(lab)
    whole = filled_pool(Noisy(), request)
    pool_place(Noisy(), request).write_bytes(b"PK")
    assert same(filled_pool(Noisy(), request), whole)


# ---- in a run


def test_a_run_makes_its_pool_and_uses_what_passes(lab):
    client = {"name": "discl", "tail_below": 0.8, "generator": "noisy", "loss": "balanced_softmax"}
    federation = lab.federation(client=client)
    pool = federation.view.plugin.parts[0].pool(federation.observer.preparation())
    assert sorted(set(pool.levels.tolist())) == [0.0, 0.1, 0.3, 0.5]
    assert len(federation.shares.material["pool.images"]) == len(pool)
    levels = {**client, "levels": [0.3]}
    assert lab.federation(client=levels).shares.material["pool.levels"].tolist() == [0.3]
    assert lab.run(client=client).result["reference"] is None


def test_every_clients_tail_has_images_and_no_other_class(lab):
    """The tail is that of the run: by the file's prior."""
    client = {"name": "discl", "tail_below": 0.8, "generator": "noisy"}
    prior = {"use": "global", "source": "oracle"}
    federation = lab.federation(client=client, prior=prior)
    data = federation.observer.data
    rare = data.class_counts / data.class_counts.sum() < 0.8 / 4
    found = federation.shares.material["pool.labels"]
    assert set(found.tolist()) == set(np.flatnonzero(rare).tolist())
    sources = np.flatnonzero(rare[data.train_labels])
    assert sorted(set(federation.shares.material["pool.sources"].tolist())) == sources.tolist()


def test_who_learns_together(lab):
    request = request_of(lab)
    clients = request.preparation.clients
    whole = FederatedDdpm().groups(request)
    assert [len(group.clients) for group in whole] == [len(clients)]
    alone = LocalDdpm().groups(request)
    assert all(len(group.clients) == 1 for group in alone)
    assert all(set(g.sources) <= set(g.clients[0]) for g in alone)
    assert sorted(np.concatenate([g.sources for g in alone])) == request.every_source.tolist()
    (oracle,) = PooledOracle().groups(request)
    assert len(oracle.clients) == 1
    assert len(oracle.clients[0]) == len(request.preparation.data.train_labels)


def test_the_oracle_is_labelled_as_a_leak(lab, monkeypatch):
    told = Told()
    monkeypatch.setattr(Noisy, "reference", PooledOracle.reference)
    filled_pool(Noisy(), request_of(lab, told))
    assert any("not federated" in line and "leak" in line for line in told.lines)
    client = {"name": "discl", "tail_below": 0.8, "generator": "noisy", "loss": "focal"}
    assert "leak" in lab.run(client=client, rounds=1).result["reference"]
    assert "leak" in DisCL(generator="pooled_oracle").reference
    assert DisCL(generator="pooled_oracle", pool_path="/pool.npz").reference == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"generator": "gan"}, "generator: unknown name 'gan'.*known: federated_ddpm, local_ddpm"),
        (
            {"generator": {"name": "local_ddpm", "round": 3}},
            "no setting 'round'; nearest",
        ),
        (
            {"generator": {"name": "local_ddpm", "rounds": "3"}},
            "rounds is '3'; expected a whole",
        ),
        (
            {"generator": {"name": "local_ddpm", "rounds": 0}},
            "generator: rounds is 0; expected at",
        ),
        (
            {"generator": {"name": "local_ddpm", "width": 12}},
            "width is 12; expected a multiple",
        ),
        ({"generator": "stable_diffusion"}, "weights_path is ''; expected a folder on this disk"),
        ({"generator": "noisy", "tail_below": 0.0}, "no client holds an image of a tail class"),
        ({"generator": {"name": "noisy", "score": 0.4}}, "generator noisy: no image is left of"),
        ({"generator": "noisy", "min_score": 1.5}, "no image is left of .*min_score is 1.5"),
        ({"generator": "noisy", "levels": [0.5, 0.1]}, r"levels: .* must ascend, in \[0, 1\)"),
        ({"generator": "noisy", "levels": [1.0]}, r"levels is \[1.0\]; expected less"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_code_2(lab, tmp_path, capsys, options, reason):
    config = lab.config(client={"name": "discl", "tail_below": 0.8, **options})
    with pytest.raises(FedltError, match=reason) as error:
        lab.federation(client={"name": "discl", "tail_below": 0.8, **options})
    assert "\n" not in str(error.value)
    file = tmp_path / "bad.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert main(["run", str(file)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_paths_inside_a_generator_are_looked_for_beside_the_file(tmp_path, lab):
    from fedlt.config import file_digests, load_config

    (tmp_path / "prompts.yaml").write_text("'0': a zero", encoding="utf-8")
    options = {"name": "stable_diffusion", "prompts_path": "prompts.yaml", "weights_path": "w"}
    config = lab.config(client={"name": "discl", "generator": {**options, "clip_path": "c"}})
    file = tmp_path / "a.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    loaded = load_config(file)
    found = loaded.client.options["generator"]["prompts_path"]
    assert found == str(tmp_path / "prompts.yaml")
    digests = file_digests(loaded)
    assert len(digests["client.generator.prompts_path"]["prompts.yaml"]) == 64
    assert digests["client.generator.weights_path"] == {"w": "unreadable"}


def test_prompts(tmp_path):
    file = tmp_path / "prompts.yaml"
    file.write_text("cat: a cat on a roof\ndog: [a dog, two dogs]\n", encoding="utf-8")
    assert read_prompts(str(file), ["dog", "cat"]) == [["a dog", "two dogs"], ["a cat on a roof"]]
    assert read_prompts("", ["cat"]) == [["a photo of a cat"]]
    with pytest.raises(FedltError, match="no sentences for class 'fox'"):
        read_prompts(str(file), ["fox"])


def test_missing_weights_are_one_line(lab):
    given = {"name": "stable_diffusion", "weights_path": "/nowhere", "clip_path": "/nowhere"}
    with pytest.raises(FedltError, match="weights_path: /nowhere is no folder on this disk"):
        lab.federation(client={"name": "discl", "tail_below": 0.8, "generator": given})


def test_the_default_generator_is_the_federations():
    assert isinstance(make_generator(DisCL().generator), FederatedDdpm)


# ---- the command


def test_generate_makes_the_pool_and_writes_it(lab, tmp_path, capsys):
    config = lab.config(client={"name": "discl", "tail_below": 0.8, "generator": "noisy"})
    file, out = tmp_path / "a.yaml", tmp_path / "pool.npz"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert main(["generate", str(file), "client.levels=[0.3]", "--output", str(out)]) == 0
    shown = capsys.readouterr()
    assert "level 0.3" in shown.err
    assert str(out) in shown.out
    assert set(load_pool(out).levels.tolist()) == {0.3}
    given = {"name": "discl", "tail_below": 0.8, "pool_path": str(out)}
    assert len(lab.federation(client=given).shares.material["pool.images"]) == len(load_pool(out))


def test_generate_refuses_a_plugin_without_a_pool(lab, tmp_path, capsys):
    file = tmp_path / "a.yaml"
    file.write_text(to_yaml(lab.config(client="focal")), encoding="utf-8")
    assert main(["generate", str(file)]) == 2
    assert "client 'focal' has no pool" in capsys.readouterr().err
