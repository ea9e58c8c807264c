"""Ranges of hyperparameters: what type hints say is refused, in a file and in Python alike."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, get_args, get_origin

import pytest

from clients import CLIENTS
from fedlt.client import ClientPlugin
from fedlt.config import Config, PluginConfig
from fedlt.config.ranges import Count, NotNegative, Share, hints_of
from fedlt.errors import FedltError
from fedlt.generators import GENERATORS
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.realigning.changes import METHODS
from fedlt.strategy import Strategy
from strategies import STRATEGIES

NEEDED = {"stable_diffusion": {"weights_path": "/weights", "clip_path": "/clip"}}
TABLES = {"strategy": STRATEGIES, "client": CLIENTS, "generator": GENERATORS, "realign": METHODS}
CLASSES = [(kind, name) for kind, table in TABLES.items() for name in table]
# What papers and definitions say: shares, temperatures, beta of the effective numbers, ...
INTERVALS = {
    ("strategy", "apfl"): {"alpha": "[0, 1]"},
    ("strategy", "balancefl"): {"weight smooth noise": "[0, inf)", "tau": "(0, inf)"},
    ("strategy", "ccvr"): {"momentum": "[0, 1)", "lr": "(0, inf)", "epochs": "[0, 1000000]"},
    ("strategy", "centralised"): {"epochs": "(0, inf)"},
    ("strategy", "creff"): {"match_lr retrain_lr": "(0, inf)", "per_class": "[1, 1000000]"},
    ("strategy", "ditto"): {"lam": "[0, inf)"},
    ("strategy", "fed_grab"): {
        "kp ki kd": "[0, inf)",
        "slope limit": "(0, inf)",
        "covered": "[0, 1)",
    },
    ("strategy", "fedala"): {"layers start_epochs": "[1, 1000000]", "share": "(0, 1]"},
    ("strategy", "fedavg_ft"): {"epochs": "[1, 1000000]"},
    ("strategy", "fedbabu"): {"epochs": "[1, 1000000]"},
    ("strategy", "feddyn"): {"alpha": "(0, inf)"},
    ("strategy", "fedetf"): {"scale classes_lr": "(0, inf)", "alternations": "[0, 1000000]"},
    ("strategy", "fedlmd"): {"beta": "[0, inf)", "tau": "(0, inf)"},
    ("strategy", "fedloge"): {"sparsity": "[0, 1)", "etf_norm etf_scale": "(0, inf)"},
    ("strategy", "fedmoswa"): {"gamma": "(0, 1]", "rho": "[0, 1]", "alpha": "(0, inf)"},
    ("strategy", "fednh"): {"momentum": "[0, 1]", "scale": "(0, inf)"},
    ("strategy", "fedntd"): {"beta": "[0, inf)", "tau": "(0, inf)"},
    ("strategy", "fedproto"): {"lam": "[0, inf)"},
    ("strategy", "fedprox"): {"mu": "[0, inf)"},
    ("strategy", "fedrep"): {"head_epochs": "[0, 1000000]"},
    ("strategy", "fedsam"): {"rho": "[0, inf)"},
    ("strategy", "fedswa"): {"rho": "[0, 1]", "alpha": "(0, inf)"},
    ("strategy", "moon"): {"mu": "[0, inf)", "temperature": "(0, inf)"},
    ("strategy", "pfedme"): {"lam outer_lr beta": "(0, inf)", "inner_steps": "[1, 1000000]"},
    ("strategy", "scaffold"): {"server_lr": "(0, inf)"},
    ("client", "class_balanced"): {"beta": "[0, 1)"},
    ("client", "deit_lt"): {
        "alpha warmup drw_start": "[0, 1]",
        "beta": "[0, 1)",
        "drw_cap": "[1, inf)",
        "mixup cutmix teacher_rho": "[0, inf)",
        "teacher_epochs": "[1, 1000000]",
        "teacher_lr": "(0, inf)",
    },
    ("client", "discl"): {"until keep confidence_below": "[0, 1]", "cap tail_below": "[0, inf)"},
    ("client", "equalisation"): {"gamma": "[0, 1]"},
    ("client", "fedlc"): {"tau": "[0, inf)"},
    ("client", "fedyoyo"): {
        "weight tau rotation": "[0, inf)",
        "temperature": "(0, inf)",
        "warmup": "[0, 1]",
    },
    ("client", "focal"): {"gamma": "[0, inf)"},
    ("client", "infobatch"): {"ratio": "[0, 1)", "until": "[0, 1]"},
    ("client", "ldam_drw"): {
        "max_margin": "[0, inf)",
        "scale": "(0, inf)",
        "beta": "[0, 1)",
        "drw_start": "[0, 1]",
    },
    ("client", "logit_adjustment"): {"tau": "[0, inf)"},
    ("client", "mdcs"): {
        "kd_weight rotation": "[0, inf)",
        "temperature scale": "(0, inf)",
        "warmup": "[0, 1]",
        "expert_width": "[0.5, 1]",
    },
    ("client", "mixup"): {"alpha": "[0, inf)"},
    ("client", "score_facility_location"): {"weight": "[0, inf)"},
    ("client", "score_graph_cut"): {"weight within": "[0, inf)"},
    ("generator", "local_ddpm"): {"rounds": "[1, 1000000]", "decay": "[0, 1)", "lr": "(0, inf)"},
    ("realign", "gla_fr"): {"scale": "(0, inf)"},
    ("realign", "tau_norm"): {"tau": "[0, inf)"},
    ("realign", "ccvr"): {"momentum": "[0, 1)", "per_class": "[1, 1000000]"},
}


def made(kind, name, **options):
    return TABLES[kind][name](**NEEDED.get(name, {}), **options)


def found(kind, name, **options):
    plugin = PluginConfig(name=name, options=options)
    resolve = resolve_strategy if kind == "strategy" else resolve_client
    return resolve(Config(name="a", rounds=1, **{kind: plugin}))


def is_refused(make, kind, name, field, value) -> bool:
    """Whether ``value`` is refused for its range, whatever else may be wrong with it."""
    try:
        make(kind, name, **{field: value})
    except ValueError as error:
        words = r"(more than|less than|at least|at most|a multiple of) \d|a finite number"
        return bool(
            re.search(rf"\b{field} is {re.escape(repr(value))}; expected ({words})", str(error))
        )
    return False


def number_hints(hint):
    """Yield the kinds of numbers in a type hint: a range as (type, its metadata)."""
    if get_origin(hint) is Annotated:
        yield get_args(hint)
    elif hint in (int, float):
        yield (hint,)
    elif get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from number_hints(part)


@pytest.mark.parametrize(("kind", "name"), CLASSES)
def test_every_number_has_a_range(kind, name):
    """A value below or beyond every use is refused where an object is made, and in a file."""
    cls = TABLES[kind][name]
    hints = hints_of(cls, name)
    for field in fields(cls):
        for number, *limits in number_hints(hints[field.name]):
            assert limits, (
                f"{name}.{field.name}: {number.__name__} has no range: fedlt.config.ranges"
            )
            if not re.search(r"G[et]\(", repr(limits)):
                continue  # any finite number
            many = get_origin(hints[field.name]) is tuple
            value = (number(-1),) if many else number(-1)
            assert is_refused(made, kind, name, field.name, value), field.name
            if kind in ("strategy", "client"):
                given = list(value) if many else value
                assert is_refused(found, kind, name, field.name, given), field.name


@pytest.mark.parametrize(("kind", "name"), INTERVALS)
def test_intervals_end_where_they_should(kind, name):
    """A bound itself is taken where the interval is closed there; a step further is refused."""
    cls, wrong = TABLES[kind][name], []
    for names, interval in INTERVALS[kind, name].items():
        low, high = (float(end) for end in interval[1:-1].split(","))
        for field in names.split():
            number = int if high == 1_000_000 else float
            step = 1 if number is int else 1e-6
            cases = {
                low: interval[0] == "(",
                low - step: True,
                (low + min(high, low + 1)) / 2: False,
            }
            if high < math.inf:
                cases |= {high: interval[-1] == ")", high + step: True}
            else:
                cases |= {1e9: False, math.inf: True, math.nan: True}
            wrong += [
                (field, value)
                for value, refused in cases.items()
                if is_refused(made, kind, name, field, number(value)) != refused
            ]
    assert not wrong, cls


@dataclass(frozen=True)
class Mine(Strategy):
    mu: NotNegative = 0.1
    tau: Share | None = None
    steps: Count = 1
    mode: Literal["fast", "slow"] = "fast"
    note: str = ""

    def __post_init__(self):
        """A check of its own, which does not call the contract's."""
        if self.mu > self.steps:
            raise ValueError("mu is above steps")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mu": -0.5}, "mu is -0.5; expected at least 0"),
        ({"mu": -0.5, "steps": -1}, "mu is -0.5; expected at least 0"),
        ({"mu": "x"}, "mu is 'x'; expected a number"),
        ({"mu": True}, "mu is True; expected a number"),
        ({"tau": 2.0}, "tau is 2.0; expected at most 1"),
        ({"steps": 1.5}, "steps is 1.5; expected a whole number"),
        ({"mode": "slwo"}, "mode is 'slwo'; expected 'fast' or 'slow'; nearest: 'slow'"),
        ({"mu": 2.0}, "mu is above steps"),
    ],
)
def test_a_users_class_with_a_check_of_its_own_is_checked_too(options, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        Mine(**options)
    with pytest.raises(ValueError, match=re.escape(line)):
        replace(Mine(steps=2), **options) if options != {"mu": 2.0} else Mine(**options)


def test_good_values_are_taken_as_they_are():
    kept = Mine(mu=1, tau=0.5, steps=3, mode="slow", note="any")
    assert (kept.mu, kept.tau, kept.steps, kept.mode, kept.note) == (1, 0.5, 3, "slow", "any")
    assert type(kept.mu) is int


def test_a_subclass_inherits_ranges_and_may_narrow_them():
    @dataclass(frozen=True)
    class Narrow(Mine):
        mu: Share = 0.1

    with pytest.raises(ValueError, match=r"mu is 1\.5; expected at most 1"):
        Narrow(mu=1.5, steps=2)
    with pytest.raises(ValueError, match="steps is 0; expected at least 1"):
        Narrow(steps=0)


def test_a_hint_that_cannot_be_read_is_one_line():
    @dataclass(frozen=True)
    class Odd(ClientPlugin):
        gamma: Nowhere = 1.0  # noqa: F821

    with pytest.raises(FedltError, match="Odd: a type annotation cannot be read: name 'Nowhere'"):
        Odd()
