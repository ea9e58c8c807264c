"""Paths in options of built-in data sets start where they were written, and count by content."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fedlt.config import load_config, settings_of
from fedlt.config.paths import DATA_PATHS
from fedlt.data.datasets import DATASETS


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("below").mkdir()
    text = "name: a\nrounds: 1\ndata:\n  dataset: {0}\n  options: {{train: l/t.txt, root: ~/im}}\n"
    for name, dataset in (("list", "list"), ("mine", "'mine.py:load'")):
        Path(f"below/{name}.yaml").write_text(text.format(dataset))


def test_a_path_of_a_list_starts_at_the_file_and_on_the_command_line_at_the_shell():
    options = load_config("below/list.yaml", ["data.options.test=t.txt"]).data.options
    assert options == {
        "train": f"{os.getcwd()}/below/l/t.txt",
        "root": str(Path.home() / "im"),
        "test": f"{os.getcwd()}/t.txt",
    }
    (given,) = [load_config("below/list.yaml", ["data={dataset: list, options: {train: x}}"])]
    assert given.data.options == {"train": f"{os.getcwd()}/x"}


def test_options_of_a_user_s_function_are_left_alone():
    assert load_config("below/mine.yaml").data.options == {"train": "l/t.txt", "root": "~/im"}


def test_the_name_of_a_column_is_no_path():
    given = ["data={dataset: csv, options: {path: a.csv, columns: {path: file name}}}"]
    options = load_config("below/list.yaml", given).data.options
    assert options == {"path": f"{os.getcwd()}/a.csv", "columns": {"path": "file name"}}
    given = ["data.dataset=csv", "data.options.columns.path=file name"]
    assert load_config("below/list.yaml", given).data.options["columns"] == {"path": "file name"}


def test_the_place_of_the_images_is_no_setting():
    settings = settings_of(load_config("below/list.yaml"))
    assert json.loads(settings["data.options.train"]) == "by content"
    settings = settings_of(load_config("below/mine.yaml"))
    assert json.loads(settings["data.options.train"]) == "l/t.txt"


def test_the_options_exist():
    import inspect

    for name, options in DATA_PATHS.items():
        assert set(options) <= set(inspect.signature(DATASETS[name]).parameters)
