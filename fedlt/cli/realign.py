"""``fedlt realign``: change the generic head of a run after training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlt.cli.completion import complete_run
from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from fedlt.realigning.changes import Realignment
    from fedlt.realigning.session import DataPolicy, Plan
    from fedlt.runs.directory import RunDirectory

_ROUNDS = 10  # default for a method that learns in rounds
Given = Mapping[str, Any]  # constants by name


def realign(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory, or its folder of several seeds.", autocompletion=complete_run
        ),
    ],
    method: Annotated[
        str, typer.Option("--method", help="gla_fr, tau_norm, logit_adjustment, lws, crt or ccvr.")
    ],
    tau: Annotated[float | None, typer.Option(help="tau_norm, logit_adjustment: 0 is off.")] = None,
    scale: Annotated[float | None, typer.Option(help="gla_fr: norm of the class vectors.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="lws, crt, ccvr: federated, or pooled (an oracle: all images at once)."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help=f"lws, crt, federated: rounds to add; {_ROUNDS} by default.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="lws, crt, ccvr: passes a round.")] = None,
    lr: Annotated[float | None, typer.Option(help="lws, crt, ccvr: learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="lws, crt, ccvr: features a step.")] = None,
    momentum: Annotated[
        float | None, typer.Option(help="ccvr: momentum of the head's training.")
    ] = None,
    per_class: Annotated[
        int | None, typer.Option(help="ccvr: features drawn of each class, on average.")
    ] = None,
    allocation: Annotated[
        str | None, typer.Option(help="ccvr: equal, or proportional to a class's images.")
    ] = None,
    covariance: Annotated[str | None, typer.Option(help="ccvr: full, or diag.")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="NAME=A,B,...", help="Try these values, on data.split: tune only."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where clients' tasks run.")] = "serial",
) -> None:
    """Change the generic linear head of a run's last checkpoint and score it before and after.

    The outcome is written to the folder realign/ beside the run; the run itself is only read.
    """
    from fedlt.engines import ENGINES
    from fedlt.errors import FedltError, nearest, writing
    from fedlt.realigning import session
    from fedlt.runs.directory import run_directories
    from fedlt.runs.files import write_sealed

    given: dict[str, float | str | None] = {"tau": tau, "scale": scale, "epochs": epochs, "lr": lr}
    given |= {"batch_size": batch_size, "momentum": momentum, "per_class": per_class}
    given |= {"allocation": allocation, "covariance": covariance}
    plans = _plans(method, {n: v for n, v in given.items() if v is not None}, data, rounds, sweep)
    known = [name for name in ENGINES if name != "auto"]
    if engine not in known:
        raise FedltError(f"--engine: no engine {engine!r}{nearest(engine, known)}")
    directories = run_directories(run)
    _check_split(directories, sweep)
    outcomes, paths = [], []
    for one in directories:  # each outcome is on disk before the next run begins
        outcomes.append(session.realign(one, plans, engine=engine))
        for plan, outcome in zip(plans, outcomes[-1], strict=True):
            paths.append(session.outcome_path(one, plan))
            with writing(paths[-1]):
                paths[-1].parent.mkdir(exist_ok=True)
                write_sealed(paths[-1], outcome, one.run)
    _show(plans, outcomes, swept=(sweep or "").partition("=")[0])
    screen().tell(*paths)
    each = [outcome for own in outcomes for outcome in own]
    pairs = zip(paths, each, strict=True)
    screen().document({"outcomes": [{"path": path, **outcome} for path, outcome in pairs]})


def _plans(
    method: str, given: Given, data: str | None, rounds: int | None, sweep: str | None
) -> list[Plan]:
    """Return one plan, or one plan per value of the sweep.

    Raises:
        FedltError: If an option is wrong, or does not belong to the method.
    """
    from fedlt.errors import FedltError, nearest
    from fedlt.realigning.changes import METHODS, Learner
    from fedlt.realigning.session import Plan

    if method not in METHODS:
        raise FedltError(f"--method: unknown {method!r}{nearest(method, METHODS)}")
    cls = METHODS[method]
    known = {field.name for field in dataclasses.fields(cls)}
    for name in given:
        if name not in known:
            option = name.replace("_", "-")
            raise FedltError(f"--{option} is no option of {method}{nearest(name, known)}")
    once = issubclass(cls, Learner) and cls.once
    policy: DataPolicy = "none"
    if not issubclass(cls, Learner):
        if data is not None:
            raise FedltError(f"--data: {method} needs no data")
    elif data not in ("pooled", "federated"):
        wrong = "is missing" if data is None else f"is {data!r}"
        raise FedltError(f"--data {wrong}: {method} learns; give pooled (an oracle) or federated")
    else:
        policy = "pooled" if data == "pooled" else "federated"
    if rounds is not None and (policy != "federated" or once):
        raise FedltError(f"--rounds: {method} takes none here; lws and crt do, with federated data")
    if rounds is not None and rounds < 1:
        raise FedltError(f"--rounds: {rounds} is not at least 1")
    added = (rounds or _ROUNDS) if policy == "federated" and not once else 0
    if sweep is None:
        return [Plan(_make(cls, given), policy, added)]
    name, values = _parse_sweep(sweep, cls, given)
    return [Plan(_make(cls, {**given, name: value}), policy, added) for value in values]


def _make(cls: type[Realignment], constants: Given) -> Realignment:
    from fedlt.errors import FedltError

    try:
        return cls(**constants)
    except ValueError as error:
        raise FedltError(f"{cls.name}: {error}") from error


def _parse_sweep(sweep: str, cls: type[Realignment], given: Given) -> tuple[str, list[Any]]:
    """Return the constant's name and its values."""
    from fedlt.errors import FedltError, nearest

    name, equals, text = sweep.partition("=")
    kinds = {name: type(value) for name, value in cls().constants().items()}
    if not equals or not text:
        raise FedltError(f"--sweep: {sweep!r} is not NAME=A,B,..., such as tau=0,0.5,1")
    if name not in kinds:
        raise FedltError(f"--sweep: {cls.name} has no constant {name!r}{nearest(name, kinds)}")
    if name in given:
        raise FedltError(f"--sweep: {name} is swept and given; give one of the two")
    try:
        values: list[Any] = [kinds[name](value) for value in text.split(",")]
    except ValueError:
        raise FedltError(f"--sweep: {text!r} is not a list of numbers for {name}") from None
    if len(set(values)) < len(values):
        raise FedltError(f"--sweep: {text!r} names a value twice")
    return name, values


def _check_split(directories: Sequence[RunDirectory], sweep: str | None) -> None:
    """Raise if a sweep would choose a constant on the test set."""
    from fedlt.errors import FedltError

    if sweep is None:
        return
    for directory in directories:
        split = directory.config().data.split
        if split != "tune":
            raise FedltError(
                f"--sweep: {directory.path} has data.split: {split}; a constant is chosen on "
                "data.split: tune, never on the test set"
            )


def _show(
    plans: Sequence[Plan], outcomes: Sequence[Sequence[Mapping[str, Any]]], swept: str
) -> None:
    """Print both views before and after the change, and the cost."""
    from fedlt.comparing.terminal import comparison_table
    from fedlt.realigning.changes import spelt

    first = outcomes[0][0]
    seeds = ", ".join(str(own[0]["seed"]) for own in outcomes)
    rounds = ", ".join(str(r) for r in sorted({own[0]["checkpoint_round"] for own in outcomes}))
    names = (first["strategy"].rpartition(":")[2], first["client"].rpartition(":")[2])
    title = (
        f"{first['method']} on {' + '.join(names)}, seed {seeds}, round {rounds}, "
        f"split {first['split']}"
    )
    rows = [("before", [own[0]["before"] for own in outcomes])]
    oracle = " (oracle)" if first["oracle"] else ""
    for number, plan in enumerate(plans):
        value = f", {swept}={spelt(plan.method.constants()[swept])}" if swept else ""
        rows.append((f"after{oracle}{value}", [own[number]["after"] for own in outcomes]))
    screen().show(comparison_table(title, rows, first))
    screen().tell(_cost(first, swept), *([_best(outcomes, swept)] if swept else []))


def _best(outcomes: Sequence[Sequence[Mapping[str, Any]]], swept: str) -> str:
    """Return a line with the best value of the sweep for each view, the first of equals.

    Best is the highest mean over seeds of the view's headline; views without one are left out.
    """
    from fedlt.evaluation.headline import headlines
    from fedlt.realigning.changes import spelt

    parts = []
    for view, metric in headlines(outcomes[0][0]).items():
        found = {
            own[0]["constants"][swept]: [one["after"][metric] for one in own]
            for own in zip(*outcomes, strict=True)
        }
        means = {value: sum(own) for value, own in found.items() if None not in own}
        if means:
            parts.append(f"{view} {swept}={spelt(max(means, key=means.__getitem__))}")
    return f"best on the validation images: {', '.join(parts)}"


def _cost(outcome: Mapping[str, Any], swept: str) -> str:
    """Return a line with the constants, the cost of the method, and the changed head."""
    from fedlt.realigning.changes import spelt

    constants = {n: value for n, value in outcome["constants"].items() if n != swept}
    words = "".join(f"{name} {spelt(value)}; " for name, value in constants.items())
    if outcome["data"] == "pooled":
        need = "learnt on the pooled training data: an oracle, not a federated method"
    elif outcome["data"] == "federated":
        down, up = (outcome[f"bytes_{way}"] / 2**20 for way in ("down", "up"))
        rounds = f"{outcome['rounds']} round{'s' if outcome['rounds'] > 1 else ''}"
        traffic = f"{down:.2f} MiB down, {up:.2f} MiB up in all"
        need = f"{rounds}, {outcome['clients']} clients, {traffic}"
    else:
        need = "no data, no rounds"
    prior = "" if outcome["prior"] is None else f"; prior: {outcome['prior']}"
    local = "; personal heads by LA-FR" if outcome["local_head"] else ""
    return f"{words}head {outcome['head']}; {need}{prior}{local}"
