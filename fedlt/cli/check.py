"""``fedlt check``: check the contract of a strategy or client plugin."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from fedlt.check import Result, Subject

_COLOURS = {"ok": "green", "fail": "bold red", "skip": "yellow", "note": "cyan"}


def check(
    name: Annotated[
        str, typer.Argument(help="path/to/mine.py:Class, package.module:Class or a built-in name.")
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Its hyperparameters, as mu=0.1."),
    ] = None,
    beside: Annotated[
        str,
        typer.Option(
            "--with", metavar="NAME", help="The client plugin or strategy to try it with."
        ),
    ] = "",
    ray: Annotated[
        bool, typer.Option("--ray/--no-ray", help="Compare with the Ray engine, too: seconds.")
    ] = True,
) -> None:
    """Check that a strategy or client plugin keeps its contract.

    The method is trained for seconds. A check that fails says what to change, and where.
    """
    from fedlt.check import run_checks, subject_of
    from fedlt.worker.worker import prepare_process

    prepare_process()
    subject = subject_of(name, _parsed(options or []), beside=beside, ray=ray)
    results = []
    for result in run_checks(subject):
        results.append(result)
        _show(result)
    failed = sum(result.status == "fail" for result in results)
    screen().tell(_summary(subject, len(results), failed))
    screen().document({"keeps": not failed, "checks": [asdict(result) for result in results]})
    if failed:
        raise typer.Exit(1)


def _parsed(options: list[str]) -> dict[str, object]:
    from fedlt.config.load import parse_options

    return parse_options(options)


def _show(result: Result) -> None:
    from rich.text import Text

    line = Text(f"{result.status:<5}", style=_COLOURS[result.status])
    line.append(f"{result.name:<12}{result.line}", style="default")
    screen().show(line, whole=True)
    for title, text in (("change", result.change), ("where", result.where)):
        if text:
            screen().tell(f"{'':17}{title}: {text}")


def _summary(subject: Subject, tried: int, failed: int) -> str:
    name = type(subject.value).__name__ if "parties" in vars(subject) else "it"
    if failed:
        return f"{name}: {failed} of {tried} checks fail"
    return f"{name} keeps its contract: {tried} checks"
