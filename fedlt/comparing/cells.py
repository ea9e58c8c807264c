"""Cells of a table from the results of a row: means, intervals, prices."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fedlt.comparing.prior_words import prior_words
from fedlt.comparing.sheet import DASH, Cell, half_width
from fedlt.comparing.statistics import interval
from fedlt.data.shots import GROUPS
from fedlt.evaluation.headline import mass_note, scored_note, scored_set
from fedlt.evaluation.metrics import by_heading, spec_of

Runs = Sequence[Mapping[str, Any]]  # results of one row, one per seed

MOMENTS = ("final", "last_k", "selected", "best_on_test")
_REST = by_heading(  # after the columns over all classes
    *(f"generic/{group}" for group in GROUPS),
    *(f"personal/{word}" for word in ("accuracy", "p10", "worst", "gain")),
)
PRICES = ("prior", "KiB down", "KiB up", "MiB", "s / run")
SPREAD = "mean ± 95 % confidence interval over seeds"
AVERAGE = "~"  # before figures of a generic model that is averaged from personal parts
BEST_ON_TEST = (
    "best_on_test: every number is from its own best round, chosen on the test set: too high; "
    "only to compare with papers that did so, never for a verdict"
)


def columns(results: Mapping[str, Runs]) -> dict[str, str]:
    """Return the columns of a table for both views: heading -> metric of a result.

    Columns over all classes come first: the accuracy on a balanced test set, else the headline and
    the accuracy. The runs of a table share their test set.

    Args:
        results: The rows, at least one row.
    """
    scored_on = scored_set(next(iter(results.values()))[0])
    first = {"generic" if n == "all" else n: word for n, word in scored_on.columns.items()}
    return {name: f"generic/{word}" for name, word in first.items()} | _REST


def notes_of(results: Mapping[str, Runs], which: str) -> list[str]:
    """Return notes about a table's test set: imbalance, and weight that clients lost."""
    lines = [scored_note(runs[0]) for runs in results.values()]
    lines += [mass_note(runs, which) for runs in results.values()]
    return [line for line in dict.fromkeys(lines) if line]


def values(runs: Runs, which: str, metric: str) -> list[float]:
    """Return a metric's values over the seeds; [] if a run lacks the metric."""
    found = [(run.get(which) or {}).get(metric) for run in runs]
    known = [float(value) for value in found if value is not None and not math.isnan(value)]
    return known if len(known) == len(found) else []


def is_average(runs: Runs) -> bool:
    """Return True if a row's generic model is a mean of personal parts."""
    return any(run.get("generic_model") == "average" for run in runs)


def mark(runs: Runs, metric: str) -> str:
    """Return ``~`` for a metric of a generic model averaged from personal parts, otherwise ""."""
    rests = metric.startswith("generic/") or spec_of(metric).uses_generic
    return AVERAGE if rests and is_average(runs) else ""


def majority_guess(rows: Sequence[Runs], which: str) -> float | None:
    """Return the mean accuracy of the trivial personal model, which is the same in every row."""
    for runs in rows:
        found = values(runs, which, "personal/majority_guess")
        if found:
            return statistics.fmean(found)
    return None


def accuracy_cell(runs: Runs, which: str, metric: str) -> Cell:
    """Return ``mean ± half`` in percent; one seed gives no interval, a missing value a dash."""
    found = values(runs, which, metric)
    if not found:
        return Cell(DASH)
    one = interval([100 * value for value in found])
    sign = "+" if spec_of(metric).signed else ""
    mean = f"{mark(runs, metric)}{one.mean:{sign}z.1f}"
    return Cell(
        mean if one.half is None else f"{mean} ± {half_width(one.half / 100)}", one.mean / 100
    )


def price_cells(runs: Runs) -> dict[str, Cell]:
    """Return a row's prices by heading: prior, bytes per client and round, memory, time.

    Seconds and peak memory are the smallest over the seeds: other work on a machine, and earlier
    runs in the same process, only add to them. Bytes that differ between seeds are averaged. A
    reference point that is not federated sends no bytes, shown as a dash.
    """
    seconds = min(float(run["seconds"]) for run in runs)
    traffic = {
        heading: statistics.fmean(float(run.get(key) or 0) for run in runs) / 1024
        for heading, key in (("KiB down", "bytes_down"), ("KiB up", "bytes_up"))
    }
    pooled = any(run.get("reference") for run in runs)
    moved = {name: DASH if pooled else f"{size:,.0f}" for name, size in traffic.items()}
    peaks = [float(run["peak_memory"]) for run in runs if run.get("peak_memory") is not None]
    memory = f"{min(peaks) / 2**20:,.0f}" if peaks else DASH
    texts = {"prior": prior_words(runs[0]), **moved, "MiB": memory, "s / run": _seconds(seconds)}
    return {name: Cell(text) for name, text in texts.items()} | _rounds_cell(runs)


def _seconds(seconds: float) -> str:
    """Return seconds as text, with one decimal below 10."""
    return f"{seconds:.1f}" if round(seconds, 1) < 10 else f"{seconds:.0f}"


def _rounds_cell(runs: Runs) -> dict[str, Cell]:
    """Return the mean rounds to a level of the generic accuracy, where they were asked for.

    A dash if a run has never reached the level.
    """
    asked = [run["rounds_to"] for run in runs if "rounds_to" in run]
    if not asked:
        return {}
    reached = [rounds for _, rounds in asked if rounds is not None]
    one = interval(reached) if len(reached) == len(asked) else None
    text = DASH if one is None else f"{one.mean:.1f}"
    if one is not None and one.half is not None:
        text += f" ± {one.half:.1f}"
    return {f"rounds to {100 * asked[0][0]:g} %": Cell(text)}
