"""What error lines and tables say, word for word where somebody was misled before."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedlt.cli import main
from fedlt.comparing.cells import accuracy_cell
from fedlt.comparing.sheet import percent
from fedlt.config import Config
from fedlt.config.experiments import experiments
from fedlt.errors import FedltError
from fedlt.methods.lookup import resolve_strategy
from fedlt.report.partition_plot import PartitionView, draw_heat

BASE = "name: a\nrounds: 1\nengine: {name: serial}\n"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("strategy=mdcs", "'mdcs' is a client plugin, not a strategy; give client=mdcs"),
        ("client=fedavg", "'fedavg' is a strategy, not a client plugin; give strategy=fedavg"),
        ("client={name: mixup, loss: ditto}", "'ditto' is a strategy, not a client plugin"),
    ],
)
def test_a_name_of_the_other_table_says_so(given, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(BASE)
    assert main(["run", "a.yaml", given]) == 2
    assert words in capsys.readouterr().err


def test_an_unannotated_field_is_told_how_to_be_one(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from strategies.fedavg import FedAvg\nclass Mine(FedAvg):\n    mu = 0.5\n")
    with pytest.raises(FedltError, match=r"mu has no annotation.*write .mu: float = 0.5. in the"):
        resolve_strategy(
            Config.model_validate(
                {"name": "a", "rounds": 1, "strategy": {"name": f"{path}:Mine", "mu": 0.1}}
            )
        )


@pytest.mark.parametrize("arguments", [["lisst"], ["run", "a.yaml", "--resum"], ["list", "modles"]])
def test_a_hint_is_given_once(arguments, capsys):
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert line.count("Did you mean") <= 1
    assert line.count("\n") == 1


def test_lines_of_experiments_are_whole(monkeypatch, capsys):
    """A line longer than the screen is not broken."""
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["list", "experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(experiments())
    assert max(map(len, lines)) > 80


def test_no_minus_before_zero():
    """-0.04 percent points round to zero, which has no sign; -0.06 round to -0.1."""
    runs = [{"last_k": {"personal/gain": value}} for value in (-0.0004, -0.0004)]
    assert accuracy_cell(runs, "last_k", "personal/gain").text.startswith("+0.0")
    runs = [{"last_k": {"personal/gain": value}} for value in (-0.0006, -0.0006)]
    assert accuracy_cell(runs, "last_k", "personal/gain").text.startswith("-0.1")
    assert percent(-0.0004) == "0.0"


@pytest.mark.parametrize("peak", [1, 2, 9, 10, 11, 39, 40, 99, 100, 370, 400, 1999, 5000, 123456])
def test_ticks_of_the_colour_bar_do_not_overlap(peak):
    """Drawn labels of a narrow picture, compared as rectangles on the page."""
    figure = Figure(figsize=(4, 4))
    axes = figure.add_subplot()
    draw_heat(axes, PartitionView(np.array([[peak, 0], [1, 1]]), ("a", "b"), {}, ""))
    figure.savefig(io.BytesIO())
    (bar,) = [one for one in figure.axes if one is not axes]
    labels = [*bar.get_xticklabels(), *bar.get_xticklabels(minor=True)]
    boxes = [one.get_window_extent() for one in labels if one.get_text() and one.get_visible()]
    low, high = bar.get_window_extent().x0, bar.get_window_extent().x1
    boxes = [box for box in boxes if low - 1 <= (box.x0 + box.x1) / 2 <= high + 1]
    assert boxes
    for number, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:number])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow")
def test_mlflow_says_nothing_between_the_rounds(tmp_path):
    """In a process of its own, where nobody has set MLflow's logger before."""
    code = (
        "from pathlib import Path\nfrom fedlt.config import Config\n"
        "from fedlt.runs.trackers import TRACKERS\n"
        f"one = TRACKERS['mlflow'](Path({json.dumps(str(tmp_path))}), Config(name='a', rounds=1))\n"
        "one.log(1, {'x': 1.0})\none.finish()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "INFO" not in done.stdout + done.stderr
