"""Verdicts of a report: every method against a reference, judged as in ``fedlt compare``."""

from __future__ import annotations

from collections.abc import Sequence

from fedlt.comparing.cells import AVERAGE
from fedlt.comparing.conditions import check_comparable
from fedlt.comparing.sheet import Cell, Sheet, number, percent, share
from fedlt.comparing.verdicts import MIN_SEEDS, Verdict, pick_reference, verdicts
from fedlt.errors import FedltError
from fedlt.report.finished import MOMENT, Method

_VIEWS = {"generic": "one model for everybody", "personal": "each client's own model"}
_WORDS = {"better": "better", "worse": "worse", "not different": "no difference shown for"}


def judged(methods: Sequence[Method], against: str = "") -> tuple[list[Verdict], str]:
    """Return the verdicts over the seeds that all methods have, and the reason if none exist.

    Args:
        methods: The methods of the report.
        against: The reference method; the first federated method by default.

    Raises:
        FedltError: If there is no such method.
    """
    points = [m.label for m in methods if m.runs[0].result.get("reference")]
    reference = pick_reference([m.label for m in methods], against, points=points)
    if len(methods) == 1:
        return [], ""
    seeds = set.intersection(*({run.seed for run in method.runs} for method in methods))
    if not seeds:
        return [], "No verdict: the methods have no seed in common."
    results = {m.label: [one for one in m.results if one["seed"] in seeds] for m in methods}
    try:
        check_comparable(results)
    except FedltError as error:
        return [], f"No verdict: {error}."
    return verdicts({"": results}, MOMENT, reference), ""


def verdict_lines(found: Sequence[Verdict]) -> list[str]:
    """Return the verdicts, one sentence per view; [] if all are undecided."""
    lines = []
    for view, words in _VIEWS.items():
        mine = [one for one in found if one.view == view]
        parts = [
            f"{said} {', '.join(_named(one) for one in mine if one.word == word)}"
            for word, said in _WORDS.items()
            if any(one.word == word for one in mine)
        ]
        if parts:
            against, seeds = mine[0].against, mine[0].test.seeds
            head = f"Tested against {against} over {seeds} seeds, {words}"
            lines.append(f"{head}: {'; '.join(parts)}.")
    return lines


def _named(one: Verdict) -> str:
    return f"{one.row} ({_difference(one).text} points)"


def verdict_sheet(found: Sequence[Verdict]) -> Sheet:
    """Return a table of the verdicts with tests and effect sizes."""
    rows = [
        [
            one.row,
            one.view,
            one.word,
            _difference(one),
            _range(one),
            number(one.p, ".3f"),
            number(one.test.effect, "+z.1f"),
            share(one.clients[0] if one.clients else None),
            share(one.clients[1] if one.clients else None),
        ]
        for one in found
    ]
    note = (
        f"Paired t test over the seeds, p by Holm's correction over all comparisons of the "
        f"command (fedlt compare: every setting of a grid), level 5 %; under {MIN_SEEDS} seeds "
        "nothing is tested. Intervals are not corrected, so one may leave zero out without a "
        "verdict. Effect size: Hedges' g of paired differences. Differences in points. Clients "
        "are counted, not tested: those of one run share a model."
    )
    headings = [
        "method", "model", "verdict", "difference", "95 % interval, each for itself", "p",
        "effect size", "clients higher, %", "clients lower, %",
    ]  # fmt: skip
    return Sheet("Verdicts", headings, rows, [note])


def _difference(one: Verdict) -> Cell:
    cell = share(one.test.difference.mean, signed=True)
    return Cell(f"{AVERAGE}{cell.text}", cell.value) if one.average else cell


def _range(one: Verdict) -> Cell:
    mean, half = one.test.difference.mean, one.test.difference.half
    if half is None:
        return share(None)
    low, high = (percent(edge, signed=True) for edge in (mean - half, mean + half))
    return Cell(f"{low} to {high}")
