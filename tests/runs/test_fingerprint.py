"""What a result belongs to: everything it depends on changes its fingerprint, nothing else does."""

from __future__ import annotations

import dataclasses
import os
import textwrap
import warnings

import numpy as np
import pytest

from fedlt.cli import main
from fedlt.config import Config, PluginConfig, load_config, settings_of
from fedlt.config.identity import NEUTRAL
from fedlt.config.import_closure import closure
from fedlt.machine import digests
from fedlt.runs.directory import RunDirectory
from fedlt.runs.fingerprint import RESULTS_VERSION, declared, fingerprint, fingerprints

# Keys that no number depends on, written out: a new key of the schema is not among them.
FREE = {
    "name", "output", "seeds", "trackers", "data.root", "checkpoint.every",
    "report.client_names", "deployment.wait", "deployment.timeout", "deployment.min_replies",
    "deployment.data", "deployment.image_shape", "deployment.mean", "deployment.std",
    "deployment.test", "deployment.answers",
    "deployment.on_error", "deployment.average_personal",
    "diagnostics.every", "diagnostics.images", "diagnostics.clients",
    "engine.name", "engine.workers", "engine.address", "engine.cpus_per_worker",
    "engine.gpus_per_worker", "engine.device", "engine.stack", "engine.compile",
    "engine.personal_memory",
}  # fmt: skip

STALE = """
name: npz
seed: 1
data: {dataset: "npz.py:load", options: {path: d.npz}}
partition: {num_clients: 4}
model: {name: mlp, width: 8}
local: {batch_size: 16}
rounds: 2
engine: {name: serial}
"""
READER = """
import numpy as np
from fedlt.data import dataset_from_arrays
def load(path: str):
    f = np.load(path)
    return dataset_from_arrays("npz", f["x"], f["y"], f["tx"], f["ty"])
"""


def write_data(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.arange(80) % 4
    images = random.integers(0, 256, (80, 4, 4), dtype=np.uint8)
    np.savez("d.npz", x=images, y=labels, tx=images[:40], ty=labels[:40])


@pytest.fixture
def stale(tmp_path, monkeypatch):
    """A file of arrays that a user's function reads, and an experiment about it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(STALE)
    (tmp_path / "npz.py").write_text(READER)
    write_data(1)
    return tmp_path


def test_rewritten_data_are_never_shown_as_the_result_of_before(stale, capsys):
    """The second set of images is another: its run is refused, that of the first is shown again."""
    assert main(["run", "a.yaml"]) == 0
    shown = capsys.readouterr().out
    write_data(2)
    for more in ([], ["--resume"]):
        assert main(["run", "a.yaml", *more]) == 2
        error = capsys.readouterr().err
        assert "the test images differ" in error
        assert "the training images differ" in error
        assert error.count("error: ") == 1
    assert main(["run", "a.yaml", "name=second"]) == 0
    assert main(["realign", "runs/npz/1", "--method", "tau_norm"]) == 2
    assert "cannot be realigned: the channel" in capsys.readouterr().err
    write_data(1)
    assert main(["run", "a.yaml"]) == 0
    table = shown[shown.index("(accuracies in %)") :]
    assert capsys.readouterr().out.endswith(table)


def test_a_run_is_not_resumed_on_other_data(stale, lab, capsys, monkeypatch):
    from fedlt.check.tiny_runs import StopAfter, StopError
    from fedlt.simulate import run

    config = load_config("a.yaml")
    with pytest.raises(StopError):
        run(config, progress=StopAfter(1))
    write_data(2)
    assert main(["run", "a.yaml", "--resume"]) == 2
    assert "cannot be resumed: the channel" in capsys.readouterr().err
    write_data(1)
    assert main(["run", "a.yaml", "--resume"]) == 0


def test_a_comparison_does_not_take_results_of_other_data(stale, capsys):
    (stale / "c.yaml").write_text(STALE + "compare: {rows: {A: {}}}\n")
    command = ["compare", "c.yaml", "--jobs", "1", "--no-report"]
    assert main(command) == 0
    write_data(2)
    assert main(command) == 2
    assert "the training images differ" in capsys.readouterr().err


def leaves(model, prefix=""):
    """Yield the dotted keys of every field of a section, and of the sections in it."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def with_key(model, key, value):
    """Return a configuration with one key changed, without checks."""
    name, _, rest = key.partition(".")
    new = with_key(getattr(model, name), rest, value) if rest else value
    return model.model_copy(update={name: new})


CONFIG = Config(name="a", rounds=3)


@pytest.mark.parametrize("key", [*leaves(CONFIG)])
def test_every_key_of_the_schema_counts_unless_it_is_neutral(key):
    sections = {"client.loss": PluginConfig(name="other")}
    value = {"other": 1} if key.endswith("options") else sections.get(key, "other")
    with warnings.catch_warnings(action="ignore"):  # the value is of another type
        found = settings_of(with_key(CONFIG, key, value))
    assert (found == settings_of(CONFIG)) == (key in FREE)


def test_the_neutral_keys_are_those_that_are_written_out():
    keys = {*leaves(CONFIG)}
    assert keys >= FREE
    assert all(any(k == n or k.startswith(f"{n}.") for k in keys) for n in NEUTRAL)


@pytest.fixture
def federation(lab):
    return lab.federation()


def test_every_field_of_the_data_counts_or_follows_from_others(federation):
    data, config = federation.observer.data, federation.view.config
    before = fingerprint(config, data)
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if isinstance(value, np.ndarray):
            changed = value.copy()
            changed.reshape(-1)[-1] ^= 1
        elif isinstance(value, int):
            changed = value + 1
        elif field.name in ("mean", "std"):
            changed = (*value[:-1], value[-1] + 1e-9)
        else:
            continue  # names, the split, which is a setting, and the partition
        after = fingerprint(config, dataclasses.replace(data, **{field.name: changed}))
        derived = field.name in ("class_counts", "client_counts")
        assert (after.run == before.run) == derived, field.name
        assert bool(after.differences(before)) != derived


def test_partition_seed_and_version_count_and_are_named(lab):
    config, data = lab.config(), lab.federation().observer.data
    known = fingerprint(config, data)
    other = lab.federation(partition={"num_clients": 4, "dirichlet_alpha": 9.0}).observer.data
    dealt = fingerprint(config, dataclasses.replace(data, partition=other.partition))
    assert dealt.differences(known) == ["the partition differs"]
    assert declared(lab.config(seed=2)).differences(declared(config)) == ["another seed"]
    older = dataclasses.replace(known, results_version=RESULTS_VERSION - 1)
    words = f"made by results version {RESULTS_VERSION - 1}, this is {RESULTS_VERSION}"
    assert known.differences(older) == [words]
    assert known.run != older.run


def test_it_survives_json_and_is_the_same_for_many_runs_at_once(lab):
    configs = [lab.config(seed=seed) for seed in (1, 2)]
    found = fingerprints(configs)
    own = [fingerprint(c, lab.federation(seed=c.seed).observer.data) for c in configs]
    assert found == own
    again = type(found[0]).from_json(found[0].to_json())
    assert again.run == found[0].run
    assert found[0].run != found[1].run


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(textwrap.dedent(text))


def test_the_closure_of_imports_by_hand(tmp_path, monkeypatch):
    """Followed: a module beside it, a package with relative imports, a module on the path, a
    name given to import_module, a circle. Not followed: Python's, installed, fedlt's, others."""
    here, there = tmp_path / "here", tmp_path / "there"
    write(
        here,
        mine="""
            import json, numpy, torch.nn
            from fedlt.strategy import Strategy
            import helper
            from package.part import thing
            import importlib
            def later():
                import elsewhere
                return importlib.import_module("named")
        """,
        helper="import mine\nfrom typing import TYPE_CHECKING\n",
        named="x = 1",
        alone="x = 1",
        package__init="",
        package__part="from . import sibling\nfrom .deep.below import x\nthing = 1",
        package__sibling="",
        package__other="",
        package__deep__below="from ..other import y\nx = 1",
    )  # fmt: skip
    (here / "package/init.py").rename(here / "package/__init__.py")
    write(there, elsewhere="x = 1")
    monkeypatch.syspath_prepend(str(there))
    assert set(closure(here / "mine.py")) == {
        "mine.py", "helper.py", "named.py", "package/__init__.py", "package/part.py",
        "package/sibling.py", "package/deep/below.py", "package/other.py", "../there/elsewhere.py",
    }  # fmt: skip
    (here / "helper.py").write_text("def broken(:")
    assert "helper.py" in closure(here / "mine.py")


def test_a_changed_import_of_a_users_file_is_named(stale, capsys):
    write(stale, pixels="SCALE = 1")
    (stale / "npz.py").write_text("import pixels\n" + READER)
    assert main(["run", "a.yaml"]) == 0
    (stale / "pixels.py").write_text("SCALE = 2")
    assert main(["run", "a.yaml"]) == 2
    assert (
        "runs/npz/1 holds another run: pixels.py has changed; name=..." in capsys.readouterr().err
    )
    assert main(["report", "runs/npz"]) == 0  # what is recorded is of one run


def test_a_module_and_its_packages_count(tmp_path, monkeypatch):
    write(tmp_path, lab_x__init="A = 1", lab_x__sub="B = 1")
    (tmp_path / "lab_x/init.py").rename(tmp_path / "lab_x/__init__.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = with_key(CONFIG, "model.name", "lab_x.sub:B")
    (files,) = declared(config).files.values()
    assert {*files} == {"sub.py", "__init__.py"}


def test_a_digest_of_a_file_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    """Read once, though asked for twice; read again after a change that keeps size and time."""
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SMALL", 10)
    monkeypatch.setattr(digests, "_SETTLED", -1.0)  # files of this test are young
    path, reads = tmp_path / "a.bin", []
    own = digests._read_digest
    monkeypatch.setattr(digests, "_read_digest", lambda path: (reads.append(path), own(path))[1])
    path.write_bytes(b"a" * 100)
    first = [digests.file_digest(path) for _ in range(2)]
    assert len(reads) == 1
    assert len({*first}) == 1
    stamp = path.stat().st_mtime_ns
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(stamp, stamp))
    assert digests.file_digest(path) != first[0]


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SMALL", 10)
    path = tmp_path / "a.bin"
    path.write_bytes(b"a" * 100)
    digests.file_digest(path)
    assert not (tmp_path / "cache").exists()


def test_an_older_run_is_refused_by_the_name_of_its_version(stale, capsys):
    assert main(["run", "a.yaml"]) == 0
    folder = RunDirectory.of(load_config("a.yaml")).path
    capsys.readouterr()
    (folder / "fingerprint.json").unlink()
    (folder / "environment.json").write_text('{"fedlt": "0.1.0"}')
    for command in (["run", "a.yaml"], ["report", "runs/npz"], ["rescore", "runs/npz"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert f"was made by results version 1 of fedlt, this is {RESULTS_VERSION}" in error
