"""``fedlt copy``: an experiment of fedlt in a folder of the user's, where nothing is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlt.cli import main
from fedlt.config import experiments as names
from fedlt.config.experiments import experiments


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder", "lines"),
    [
        ("quickstart", ".", ["quickstart.yaml", "next: fedlt run quickstart.yaml"]),
        ("tables/digits", "a b", ["a b/digits.yaml", "next: fedlt compare 'a b/digits.yaml'"]),
        (
            "fedloge",
            "x/y",
            [
                "x/y/fedloge.yaml",
                "x/y/fedloge_trajectories.csv",
                "next: fedlt reproduce x/y/fedloge.yaml",
            ],
        ),
    ],
)
def test_the_copy_is_the_same_and_the_screen_says_what_comes_next(name, folder, lines, capsys):
    assert main(["copy", name, folder]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    known = {**experiments(), "fedloge": experiments()["paper/fedloge"]}
    assert Path(lines[0]).read_bytes() == known[name].read_bytes()


def test_what_an_experiment_names_is_copied_too(tmp_path, monkeypatch, capsys):
    home = tmp_path / "package/experiments"
    (home / "below").mkdir(parents=True)
    (home / "a.yaml").write_text("name: a\npartition: {file: below/p.json}\n")
    (home / "below/p.json").write_text("{}")
    monkeypatch.setattr(names, "_PACKAGE", tmp_path / "package")
    assert main(["copy", "a", "mine"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["mine/a.yaml", "mine/below/p.json", "next: fedlt run mine/a.yaml"]
    assert Path("mine/below/p.json").read_text() == "{}"
    Path("mine/a.yaml").unlink()
    assert main(["copy", "a", "mine"]) == 2  # one of two is there
    assert not Path("mine/a.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["quickstart"], "quickstart.yaml is there already; nothing was written"),
        (["quickstart", "quickstart.yaml"], "quickstart.yaml/quickstart.yaml cannot be written"),
        (["quickstat"], "no experiment 'quickstat'; nearest: 'quickstart'"),
        (["quickstart.yaml"], "no experiment 'quickstart.yaml'; nearest: 'quickstart'"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(arguments, line, capsys):
    Path("quickstart.yaml").write_text("mine")
    assert main(["copy", *arguments]) == 2
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert Path("quickstart.yaml").read_text() == "mine"
    assert [path.name for path in Path().iterdir()] == ["quickstart.yaml"]
