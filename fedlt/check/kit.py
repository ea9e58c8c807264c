"""Conformance kit: table of checks by name, and their runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fedlt.check.findings import Note, Result, Violation
from fedlt.check.hidden import draws_nothing_global, reads_no_clock
from fedlt.check.server import ignores_order, weighs_to_one
from fedlt.check.source_lines import Places, root_cause
from fedlt.check.stream_logits import runs_on_streams
from fedlt.check.tasks import answers, covers_groups, first_state, is_pure, writes_nothing
from fedlt.check.tiny_federation import PluginSection, Subject
from fedlt.check.whole import (
    builds,
    equal_on_engines,
    is_picklable,
    is_stackable,
    resumes,
    trains,
)
from fedlt.errors import one_line


@dataclass(frozen=True)
class Check:
    """Check of one promise of the contract."""

    try_it: Callable[[Subject], str]  # returns the line for a kept promise; raises Violation
    sections: tuple[PluginSection, ...] = (
        "strategy",
        "client",
    )  # where the check applies
    needs: tuple[str, ...] = ("trains",)  # checks whose failure explains a crash of this check


CHECKS: dict[str, Check] = {
    "builds": Check(builds, needs=()),
    "picklable": Check(is_picklable, needs=("builds",)),
    "trains": Check(trains, needs=("builds",)),
    "groups": Check(covers_groups),
    "update": Check(answers),
    "streams": Check(runs_on_streams, needs=("trains", "update")),
    "weights": Check(weighs_to_one, ("strategy",), needs=("trains", "update")),
    "order": Check(ignores_order, ("strategy",), needs=("trains", "update")),
    "first-state": Check(first_state, ("strategy",)),
    "pure": Check(is_pure),
    "writes": Check(writes_nothing),
    "random": Check(draws_nothing_global, needs=("trains", "update")),
    "clock": Check(reads_no_clock, needs=("trains", "update")),
    "resume": Check(resumes),
    "engines": Check(equal_on_engines, needs=("trains", "picklable")),
    "stackable": Check(is_stackable),
}


def checks_of(section: PluginSection) -> tuple[str, ...]:
    """Return the names of the checks of a strategy or a client plugin."""
    return tuple(name for name, check in CHECKS.items() if section in check.sections)


def run_check(name: str, subject: Subject, before: Mapping[str, Result] | None = None) -> Result:
    """Return the outcome of one check.

    Args:
        name: A key of :data:`CHECKS`.
        subject: The class under test.
        before: Results of earlier checks; a crash that an earlier failure explains is skipped.
    """
    check, known = CHECKS[name], before or {}
    broken = [need for need in ("builds", *check.needs) if _failed(known, need)]
    if "builds" in broken:
        return Result(name, "skip", "not tried: see builds")
    try:
        line = check.try_it(subject)
    except Violation as found:
        return Result(name, "fail", found.line, found.change, found.where)
    except Exception as error:
        if broken:
            return Result(name, "skip", f"not tried: see {broken[0]}")
        cause = root_cause(error)
        where = Places(subject).of_error(cause.__traceback__)
        line = f"raises {one_line(cause)}"
        return Result(name, "fail", line, "mend what raises there", where)
    if isinstance(line, Note) and broken:
        return Result(name, "skip", f"not tried: see {broken[0]}")
    return Result(name, "note" if isinstance(line, Note) else "ok", line)


def _failed(results: Mapping[str, Result], name: str) -> bool:
    return name in results and results[name].status == "fail"


def run_checks(subject: Subject) -> Iterator[Result]:
    """Yield the outcome of every check of a subject."""
    results: dict[str, Result] = {}
    for name in checks_of(subject.section):
        results[name] = run_check(name, subject, results)
        yield results[name]
