"""Names of experiments: what a name or a path means, from any directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlt.config import experiments as names
from fedlt.config.experiments import (
    experiments,
    find_experiment,
    named_experiment,
    needed_files,
    recipes,
)
from fedlt.errors import FedltError

FOLDER = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_file_of_the_folder_has_a_name():
    known = experiments()
    assert set(known.values()) == set(FOLDER.rglob("*.yaml"))
    assert {"quickstart", "tables/digits", "paper/fedloge"} <= set(known)
    assert [*known] == sorted(known)
    assert recipes()["fedloge"] == known["paper/fedloge"]


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("quickstart", "quickstart.yaml"),
        ("tables/digits", "tables/digits.yaml"),
        ("paper/fedloge", "paper/fedloge.yaml"),
        ("fedloge", "paper/fedloge.yaml"),
    ],
)
def test_a_name_is_a_file_of_fedlt(given, file):
    assert find_experiment(given) == named_experiment(given) == FOLDER / file


def test_a_file_that_exists_comes_first_and_a_folder_does_not():
    Path("quickstart").mkdir()
    assert find_experiment("quickstart") == FOLDER / "quickstart.yaml"
    Path("fedloge").write_text("name: mine")
    assert find_experiment("fedloge") == Path("fedloge")
    assert find_experiment(Path("fedloge")) == Path("fedloge")


def test_the_folder_of_a_wheel_lies_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "fedlt/experiments").mkdir(parents=True)
    (tmp_path / "fedlt/experiments/one.yaml").touch()
    monkeypatch.setattr(names, "_PACKAGE", tmp_path / "fedlt")
    assert experiments() == {"one": tmp_path / "fedlt/experiments/one.yaml"}


def test_files_of_two_folders_with_one_name_are_both_the_nearest(tmp_path, monkeypatch):
    known = {name: tmp_path / f"{name}.yaml" for name in ("more/mine", "tables/mine", "tables/b")}
    monkeypatch.setattr(names, "experiments", lambda: known)
    with pytest.raises(FedltError, match="nearest: 'more/mine' or 'tables/mine'; 'fedlt list"):
        find_experiment("mine")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("quickstat", "no file and no experiment 'quickstat'; nearest: 'quickstart'; 'fedlt list"),
        ("digits", "nearest: 'tables/digits'"),
        ("fashion_mnist", "nearest: 'centralised/fashion_mnist'; 'fedlt list"),
        ("fedlgoe", "nearest: 'fedloge'"),
        ("xyz", r"no experiment 'xyz'; 'fedlt list experiments' has all names"),
        ("experiments/quickstart.yaml", "cannot be read: .*; nearest: 'quickstart'"),
        ("quickstart.yml", "cannot be read: .*; nearest: 'quickstart'"),
        ("../quickstart", "cannot be read: No such file or directory"),
    ],
)
def test_an_unknown_name_gets_the_nearest(given, line):
    with pytest.raises(FedltError, match=line):
        find_experiment(given)


def test_a_name_that_no_file_can_have_is_left_to_its_reader():
    assert find_experiment("x" * 9000) == Path("x" * 9000)


def test_a_path_is_no_name():
    Path("mine.yaml").touch()
    with pytest.raises(FedltError, match=r"no experiment 'mine.yaml'"):
        named_experiment("mine.yaml")


def test_needed_files_are_those_below_the_experiment_s_folder(tmp_path):
    for name in ("p.json", "method.py", "above.py", "outside.json"):
        Path(name).touch()
    Path("below/deep").mkdir(parents=True)
    for name in ("below/p.json", "below/deep/method.py"):
        Path(name).touch()
    Path("below/a.yaml").write_text(
        "partition: {file: p.json}\n"
        "compare: {rows: {A: {strategy: 'deep/method.py:Mine'}, B: {client: '../above.py:C'}}}\n"
        f"data: {{root: '{tmp_path}/outside.json', dataset: digits}}\n"
        "strategy: deep/method.py:Other\nlist: [deep, none.json, '']\n"
    )
    assert needed_files(Path("below/a.yaml")) == [Path("p.json"), Path("deep/method.py")]


@pytest.mark.parametrize("name", [*experiments()])
def test_an_experiment_of_fedlt_needs_nothing_outside_its_folder(name):
    """Else a copy would name files that are not there."""
    text = experiments()[name].read_text(encoding="utf-8")
    assert "../" not in text
