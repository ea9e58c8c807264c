"""`fedlt data prepare`: what it writes and says; runs that find their images decoded, or decode."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from image_trees import write_tree

from fedlt.cli import main

FILE = """
name: mine
rounds: 1
data: {dataset: folder, root: cache-of-mine, options: {path: tree, image_size: 8}}
partition: {num_clients: 2}
model: {width: 2}
engine: {name: serial}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_tree(Path("tree"), {"train": {"a": 8, "b": 6}, "test": {"a": 2, "b": 2}})
    Path("mine.yaml").write_text(FILE)


def test_it_decodes_once_and_says_speed_size_and_place(capsys):
    assert main(["data", "prepare", "mine.yaml", "--workers", "1"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "tree: 2 classes; images: 14 train, 4 test; each 3 x 8 x 8"
    assert re.fullmatch(
        r"train: 14 images, decoded in [\d.]+ s, [\d,]+ a second; 0.0 MB in"
        rf" {Path.cwd()}/cache-of-mine/cache/tree-train-8x8-\w+.npy",
        lines[0],
    )
    assert main(["data", "prepare", "mine.yaml"]) == 0
    again = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(";")[0] for line in again] == [
        "train: 14 images, there already",
        "test: 4 images, there already",
    ]


def test_its_json_has_the_files_and_quiet_leaves_the_news_out(capsys):
    assert main(["--json", "data", "prepare", "mine.yaml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["classes"], found["images"]) == (2, {"train": 14, "test": 4})
    assert [(one["part"], one["images"]) for one in found["files"]] == [("train", 14), ("test", 4)]
    given = ["data", "prepare", "mine.yaml", "data.options.expect=cinic10"]
    assert main([*given, "data.options.strict=false"]) == 0
    assert "CINIC-10: 14 train images found, 90,000 expected" in capsys.readouterr().err
    assert main(["--quiet", *given, "data.options.strict=false"]) == 0
    assert capsys.readouterr().err == ""


def test_a_run_decodes_by_itself_and_shows_its_result_again(capsys):
    assert main(["run", "mine.yaml"]) == 0
    assert len(list(Path("cache-of-mine/cache").glob("*.npy"))) == 2
    assert main(["inspect", "mine.yaml"]) == 0
    assert main(["run", "mine.yaml"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "mine.yaml", "data.options.path=tre"], "no folder '{0}/tre'; nearest: 'tree'"),
        (["prepare", "mine.yaml", "--workers", "0"], "0 is not in the range"),
        (["prapare", "mine.yaml"], "'prapare' is not"),
        (["prepare", "mine.yaml", "data.dataset=foldr"], "nearest: 'folder'"),
    ],
)
def test_mistakes_are_one_line(arguments, words, capsys):
    assert main(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert words.format(Path.cwd()) in captured.err


def test_a_data_set_without_files_has_nothing_to_prepare(capsys):
    assert main(["data", "prepare", "mine.yaml", "data={dataset: digits}"]) == 0
    assert "nothing to prepare" in capsys.readouterr().out
    Path("theirs.py").write_text("raise SystemExit('executed')")
    assert main(["data", "prepare", "mine.yaml", "data={dataset: 'theirs.py:load'}"]) == 0
    assert "nothing to prepare" in capsys.readouterr().out


def test_every_data_set_has_a_line_of_its_own(capsys):
    assert main(["list", "datasets"]) == 0
    out = capsys.readouterr().out
    for name in ("folder", "list", "csv", "npz", "huggingface", "features", "emnist", "svhn"):
        (line,) = [one for one in out.splitlines() if one.split()[0] == name]
        assert len(line.split()) > 4
