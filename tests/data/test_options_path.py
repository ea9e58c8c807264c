"""A data set's file is found beside the YAML file, and one that is not there is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fedlt.cli import main

READER = """import numpy as np

from fedlt.data import dataset_from_arrays


def load(path: str):
    file = np.load(path)
    return dataset_from_arrays("noise", file["x"], file["y"], file["x"], file["y"])
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("reader.py").write_text(READER)
    Path("below").mkdir()
    text = "name: noise\nrounds: 1\npartition: {num_clients: 2}\nmodel: {width: 2}\n"
    text += "engine: {name: serial}\ndata: {dataset: '../reader.py:load', options: {path: d.npz}}\n"
    Path("below/noise.yaml").write_text(text)


def write(path: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez(path, x=images, y=np.arange(80) % 4)


def test_the_data_lie_beside_the_file_as_their_reader_does(capsys):
    write("below/d.npz")
    Path("d.npz").write_text("what lies beside the shell is not read")
    assert main(["run", "below/noise.yaml"]) == 0
    assert f"path: {os.getcwd()}/below/d.npz" in Path("runs/noise/1/config.yaml").read_text()
    capsys.readouterr()


def test_a_path_of_the_command_line_lies_beside_the_shell(capsys):
    write("e.npz")
    assert main(["inspect", "below/noise.yaml", "--trust", "data.options.path=e.npz"]) == 0
    capsys.readouterr()


def test_a_missing_file_is_named_with_the_line_of_the_function(capsys):
    assert main(["run", "below/noise.yaml"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"no file '{os.getcwd()}/below/d.npz' (reader.py, line 7)" in line
    assert not Path("runs").exists()
