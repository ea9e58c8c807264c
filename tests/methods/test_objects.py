"""Objects in a configuration: names, hyperparameters, files; and whole runs with them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import fedlt
from clients import CLIENTS
from fedlt.errors import FedltError
from fedlt.methods.objects import PlainTree
from strategies import STRATEGIES

EXPERIMENT = {
    "name": "objects",
    "rounds": 1,
    "data": {
        "dataset": "synthetic",
        "options": {"num_classes": 4, "train_per_class": 40, "test_per_class": 10},
    },
    "partition": {"num_clients": 3},
    "model": {"name": "cnn", "width": 4},
    "engine": {"name": "serial"},
}
MINE = """
from dataclasses import dataclass
from fedlt.config.ranges import NotNegative
from strategies import FedProx
from torch import nn

@dataclass(frozen=True)
class Mine(FedProx):
    'Mine.'
    more: NotNegative = 1.0

class Net(nn.Sequential):
    def __init__(self, image_shape, hidden=5):
        channels, height, width = image_shape
        super().__init__(nn.Flatten(), nn.Linear(channels * height * width, hidden))

def outer():
    class Inner(FedProx):
        'Inner.'
    return Inner
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return a module of the user's own, imported from the working directory."""
    (tmp_path / "my_own_module.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__("my_own_module")
    del sys.modules["my_own_module"]


def plain(content):
    return PlainTree(content, Path("code")).tree


def test_plain_values():
    given = {"a": (1, np.float64(0.5)), "b": {"c": Path("x/y"), "d": np.arange(2)}, "e": None}
    assert plain(given) == {"a": [1, 0.5], "b": {"c": "x/y", "d": [0, 1]}, "e": None}


def test_built_in_methods_have_their_names():
    fedprox, focal = STRATEGIES["fedprox"], CLIENTS["focal"]
    assert plain({"strategy": fedprox(mu=0.25)}) == {"strategy": {"name": "fedprox", "mu": 0.25}}
    assert plain({"strategy": fedprox()}) == {"strategy": {"name": "fedprox"}}
    assert plain({"strategy": {"name": fedprox, "mu": 1.0}})["strategy"]["name"] == "fedprox"
    assert plain({"client": {"name": "infobatch", "loss": focal(gamma=2.5)}})["client"] == {
        "name": "infobatch",
        "loss": {"name": "focal", "gamma": 2.5},
    }


def test_a_class_of_a_file_is_named_by_the_file(mine, tmp_path):
    found = plain({"strategy": mine.Mine(mu=0.5)})["strategy"]
    assert found == {"name": f"{tmp_path / 'my_own_module.py'}:Mine", "mu": 0.5}
    assert not (tmp_path / "code").exists()


def test_a_class_inside_a_function_is_refused(mine):
    with pytest.raises(FedltError, match="lies inside other code; define it at the top"):
        plain({"strategy": mine.outer()()})
    with pytest.raises(FedltError, match="lies inside other code"):
        plain({"data": {"dataset": lambda: None}})


def test_a_class_is_a_model(mine, tmp_path):
    spec = f"{tmp_path / 'my_own_module.py'}:Net"
    assert plain({"model": mine.Net}) == {"model": spec}
    assert plain({"model": {"name": mine.Net, "options": {"hidden": 3}}})["model"]["name"] == spec
    with pytest.raises(FedltError, match=r"^model: a .*Net is no name; give the class or function"):
        plain({"model": mine.Net((1, 8, 8))})


def test_a_run_with_a_class_as_model(mine):
    run = fedlt.run({**EXPERIMENT, "model": mine.Net}, quiet=True)
    assert run.config.model.name.endswith("my_own_module.py:Net")
    named = {**EXPERIMENT, "model": {"name": "my_own_module.py:Net"}}
    assert fedlt.run(named, quiet=True) == run


def test_a_run_with_an_object_is_that_of_the_file(mine, tmp_path):
    """Shown for the name of the file, since the fingerprint is the same."""
    run = fedlt.run({**EXPERIMENT, "strategy": mine.Mine(mu=0.5)}, quiet=True)
    named = {"name": "my_own_module.py:Mine", "mu": 0.5}
    assert fedlt.run({**EXPERIMENT, "strategy": named}, quiet=True) == run


def test_a_class_of_a_session_is_kept_with_the_runs(tmp_path, monkeypatch):
    """A script's own class: written, found again, and named anew after an edit."""
    script = tmp_path / "script.py"
    text = MINE + (
        "import fedlt\n"
        f"experiment = {EXPERIMENT!r}\n"
        "run = fedlt.run({**experiment, 'strategy': Mine(mu=0.5)}, quiet=True)\n"
    )
    script.write_text(text)
    monkeypatch.chdir(tmp_path)
    main = sys.modules["__main__"]
    import runpy

    first = runpy.run_path(str(script), run_name="__main__")["run"]
    assert sys.modules["__main__"] is main
    kept = [*(tmp_path / "runs/code").iterdir()]
    assert len(kept) == 1
    assert first.config.strategy.name == f"{kept[0]}:Mine"
    assert "fedlt.run" not in kept[0].read_text()
    assert runpy.run_path(str(script), run_name="__main__")["run"] == first
    script.write_text(text.replace("= 1.0", "= 2.0"))
    with pytest.raises(FedltError, match=r"Mine_.* has changed"):
        runpy.run_path(str(script), run_name="__main__")
    assert [*(tmp_path / "runs/code").iterdir()] == kept


def test_rows_of_a_comparison_are_objects_too(mine, tmp_path):
    table = fedlt.compare(EXPERIMENT, strategies=["fedavg", mine.Mine(mu=0.5)], jobs=1, quiet=True)
    assert [*table.runs] == ["fedavg", "Mine (mu=0.5)"]
