"""From names to strategy and client plugin objects, and every way that can be refused."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fedlt.client import ClientPlugin
from fedlt.config import Config, PluginConfig
from fedlt.errors import FedltError
from fedlt.methods import lookup as plugins
from fedlt.methods.lookup import known_plugins, resolve_client, resolve_strategy
from fedlt.strategy import Strategy


@dataclass(frozen=True)
class Known(Strategy):
    mu: float = 0.1
    steps: int = 1
    names: tuple[str, ...] = ()
    kind: str | None = None

    def __post_init__(self):
        if self.mu < 0:
            raise ValueError("mu must be at least 0")


@pytest.fixture(autouse=True)
def _tables(monkeypatch, tmp_path):
    tables = {"strategy": {"fedavg": Strategy, "known": Known}, "client": {"plain": ClientPlugin}}
    monkeypatch.setattr(plugins, "_builtin", tables.__getitem__)
    monkeypatch.setattr(plugins, "_short_names", lambda section: {})
    monkeypatch.chdir(tmp_path)


def strategy(name: str, **options):
    plugin = PluginConfig(name=name, options=options)
    return resolve_strategy(Config(name="a", rounds=1, strategy=plugin))


def client(name: str, **options):
    plugin = PluginConfig(name=name, options=options)
    return resolve_client(Config(name="a", rounds=1, client=plugin))


def refused(name: str, **options) -> str:
    with pytest.raises(FedltError) as caught:
        strategy(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def user_class(body: str, name: str = "S") -> str:
    """Write a user's file and return the spec of the class in it; the names are unique per test."""
    header = """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import ClassVar, TYPE_CHECKING
        from fedlt.client import ClientPlugin
        from fedlt.strategy import Strategy, StrategyTraits
    """
    path = Path.cwd() / "mine.py"
    path.write_text(textwrap.dedent(header) + textwrap.dedent(body))
    return f"{path}:{name}"


def test_builtin_names_and_hyperparameters():
    assert strategy("known", mu=1, names=["a", "b"]) == Known(mu=1.0, names=("a", "b"))
    assert isinstance(strategy("known", mu=1).mu, float)
    assert strategy("fedavg") == Strategy()
    assert client("plain") == ClientPlugin()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"mu": "big"}, ["strategy.mu is 'big'", "expected a number"]),
        ({"mu": True}, ["strategy.mu is True", "expected a number"]),
        ({"mu": None}, ["strategy.mu is None", "expected a number"]),
        ({"mu": float("nan")}, ["strategy.mu is nan", "finite"]),
        ({"steps": 1.5}, ["strategy.steps is 1.5", "a whole number"]),
        ({"names": "abc"}, ["strategy.names is 'abc'", "expected a list"]),
        ({"names": [1]}, ["strategy.names is [1]", "expected text"]),
        ({"kind": 3}, ["strategy.kind is 3", "text"]),
        ({"muu": 1}, ["strategy.muu: unknown hyperparameter of 'known'", "nearest: 'mu'"]),
        ({"reduces": False}, ["strategy.reduces: unknown hyperparameter"]),
        ({"mu": -1}, ["strategy", "'known' refuses", "mu must be at least 0"]),
    ],
)
def test_wrong_hyperparameters(options, parts):
    line = refused("known", **options)
    assert all(part in line for part in parts), line


def test_unknown_names():
    assert refused("knwon") == (
        "strategy.name: unknown strategy 'knwon'; nearest: 'known'; known: fedavg, known"
    )
    assert "it has none" in refused("fedavg", mu=1)
    with pytest.raises(FedltError, match=r"client\.name: unknown client 'plian'; nearest: 'plain'"):
        client("plian")


def test_user_file():
    spec = user_class("""
        @dataclass(frozen=True)
        class S(Strategy):
            traits = StrategyTraits(reduces=False)
            mu: float
            momentum: float = 0.5
        @dataclass(frozen=True)
        class C(ClientPlugin):
            tau: float = 1.0
    """)
    found = strategy(spec, mu=1e-3)
    assert (found.mu, found.momentum, found.traits.reduces) == (0.001, 0.5, False)
    assert "strategy.mu is missing" in refused(spec)
    assert client(spec.replace(":S", ":C"), tau=2).tau == 2.0


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("S = 3", ["is not a class derived from fedlt.strategy.Strategy"]),
        ("class S: pass", ["is not a class derived from", "derive it"]),
        ("class S(ClientPlugin): pass", ["is not a class derived from fedlt.strategy.Strategy"]),
        ("class S(Strategy):\n    mu: float = 1.0", ["declares 'mu'", "@dataclass(frozen=True)"]),
        ("@dataclass\nclass S(Strategy):\n    mu: float = 1.0", ["fails on import", "frozen"]),
        (
            "class S(Strategy):\n    def aggregate(self, state): ...",
            ["S.aggregate must be a method taking (self, state, total)"],
        ),
        ("class S(Strategy):\n    init = None", ["S.init must be a method taking (self, model)"]),
        (
            "@dataclass(frozen=True)\nclass S(Strategy):\n    mu: Flaot = 1.0",
            ["a type annotation cannot be read", "Flaot"],
        ),
        ("class S(Strategy):\n    reduces = False", ["traits = StrategyTraits(reduces=...)"]),
        (
            "class S(Strategy):\n    needs_sgd: ClassVar[bool] = True",
            ["StrategyTraits(needs_sgd=...)"],
        ),
        ("def broken(:", ["fails on import", "SyntaxError"]),
        ("raise RuntimeError('no\\nlicence')", ["fails on import", "RuntimeError"]),
        ("class T(Strategy): pass", ["has no 'S'"]),
    ],
)
def test_class_that_does_not_satisfy_the_contract(body, parts):
    line = refused(user_class("") if not body else user_class(body))
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    "body",
    [
        "class S(Strategy):\n    def generic(self, model, broadcast): return {}",
        "class S(Strategy):\n    def generic(self, *args, **kwargs): return {}",
        "class S(Strategy):\n    @staticmethod\n    def init(model): return None",
        "class S(Strategy):\n    def init(self, model, extra=None): return None",
        "class S(Strategy):\n    traits = StrategyTraits(reduces=False)",
    ],
)
def test_class_that_satisfies_it_in_its_own_way(body):
    assert isinstance(strategy(user_class(body)), Strategy)


def test_type_that_a_file_cannot_hold():
    spec = user_class("""
        from torch import Tensor
        @dataclass(frozen=True)
        class S(Strategy):
            weight: Tensor | None = None
    """)
    assert strategy(spec).weight is None
    assert "cannot be given in a file" in refused(spec, weight=[1])


def test_a_hyperparameter_may_have_the_name_of_a_trait():
    spec = user_class("""
        @dataclass(frozen=True)
        class C(ClientPlugin):
            experts: int = 3
    """)
    assert client(spec.replace(":S", ":C"), experts=2).experts == 2


def test_missing_file_and_module(tmp_path):
    assert "no file" in refused(f"{tmp_path}/none.py:S")
    assert "cannot import 'nowhere_at_all'" in refused("nowhere_at_all:S")


def test_entry_points(monkeypatch):
    points = [
        EntryPoint("theirs", f"{__name__}:Theirs", "fedlt.strategies"),
        EntryPoint("gone", "nowhere_at_all:S", "fedlt.strategies"),
        EntryPoint("known", "nowhere_at_all:S", "fedlt.strategies"),
    ]
    found = {"fedlt.strategies": points, "fedlt.clients": []}
    monkeypatch.setattr(plugins, "installed_points", found.__getitem__)
    monkeypatch.setattr(points[0].__class__, "load", _load)
    assert isinstance(strategy("theirs"), Theirs)
    assert isinstance(strategy("known"), Known)
    assert "entry point 'gone' fails on import" in refused("gone")
    listed = known_plugins("strategy")
    assert listed["theirs"] == "A strategy of another package."
    assert "cannot be loaded" in listed["gone"]


@dataclass(frozen=True)
class Theirs(Strategy):
    """A strategy of another package."""


def _load(point):
    if point.name == "theirs":
        return Theirs
    raise ImportError("gone")


def test_folder_of_the_user_that_hides_ours_is_named(monkeypatch, tmp_path):
    import sys
    import types

    monkeypatch.undo()
    intruder = types.ModuleType("strategies")
    intruder.__file__ = str(tmp_path / "strategies" / "__init__.py")
    monkeypatch.setitem(sys.modules, "strategies", intruder)
    with pytest.raises(FedltError, match="package 'strategies' comes from") as caught:
        strategy("fedavg")
    assert str(tmp_path / "strategies") in str(caught.value)


FLOWER = "flwr.serverapp.strategy"


def test_stock_flower_strategy():
    stock = strategy(f"{FLOWER}:FedAdam", eta=1e-2, tau=1)
    assert stock.factory.__name__ == "FedAdam"
    assert stock.options == {"eta": 0.01, "tau": 1.0}


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("FedAdam", {"etaa": 1}, ["strategy.etaa: unknown hyperparameter", "nearest: 'eta'"]),
        ("FedAdam", {"eta": "x"}, ["strategy.eta is 'x'", "a number"]),
        ("FedAdam", {"fraction_train": 0.5}, ["set by fedlt", "clients_per_round"]),
        ("FedAdm", {}, ["has no 'FedAdm'", "nearest: 'FedAdam'"]),
        ("Strategy", {}, ["Strategy must define aggregate_evaluate"]),
    ],
)
def test_stock_flower_strategy_refused(name, options, parts):
    line = refused(f"{FLOWER}:{name}", **options)
    assert all(part in line for part in parts), line
