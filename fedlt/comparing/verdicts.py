"""Verdicts: is the difference of a row from the reference row real? In words.

Per view the primary head's headline is tested, paired over seeds, and all tests of one command are
corrected together. Under five seeds the verdict is ``undecided``. Clients of a run share a model
and test images, so shares of clients are a description, never a test.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedlt.comparing.better_off import higher_and_lower
from fedlt.comparing.cells import AVERAGE, is_average, values
from fedlt.comparing.conditions import Results
from fedlt.comparing.statistics import LEVEL, PairedTest, holm, paired_test
from fedlt.errors import FedltError, nearest
from fedlt.evaluation.headline import headlines

MIN_SEEDS = 5

VerdictWord = Literal["better", "worse", "not different", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """Verdict on a row against the reference, in one view of one setting."""

    setting: str  # of a grid; "" without one
    row: str
    against: str
    view: str  # generic or personal
    metric: str  # the tested metric: the view's headline
    word: VerdictWord
    test: PairedTest
    p: float | None  # corrected by Holm's method; None: undecided
    average: bool = False  # a generic model of the two is a mean of personal parts
    clients: tuple[float, float] | None = None  # shares of clients above and below the reference


def judge(tests: Sequence[PairedTest]) -> list[tuple[VerdictWord, float | None]]:
    """Return each test's verdict and corrected p.

    Holm's correction runs over the tests with enough seeds; other tests are ``undecided``.
    """
    enough = [n for n, test in enumerate(tests) if test.seeds >= MIN_SEEDS and test.p is not None]
    corrected = dict(zip(enough, holm([tests[n].p or 0.0 for n in enough]), strict=True))
    found: list[tuple[VerdictWord, float | None]] = []
    for number, test in enumerate(tests):
        p = corrected.get(number)
        word: VerdictWord = "undecided"
        if p is not None:
            word = "not different"
            if p <= LEVEL:
                word = "better" if test.difference.mean > 0 else "worse"
        found.append((word, p))
    return found


def pick_reference(
    labels: Sequence[str], against: str = "", *, points: Collection[str] = ()
) -> str:
    """Return the reference row: the row named by ``against``, else the first method.

    Args:
        labels: The labels of the rows.
        against: The label that the user names, if any.
        points: Labels of rows that are not federated, which are taken only as a last resort.

    Raises:
        FedltError: If there is no such row.
    """
    if against and against not in labels:
        raise FedltError(f"against: no row {against!r}{nearest(against, labels)}")
    return against or next((label for label in labels if label not in points), labels[0])


def verdicts(tables: Mapping[str, Results], which: str, against: str) -> list[Verdict]:
    """Return a verdict for each row and view that can be compared with the reference.

    A reference point that is not federated, such as pooled training, gets no verdict.

    Args:
        tables: The comparable tables of one command, by setting.
        which: ``final``, ``last_k`` or ``selected``.
        against: The label of the reference row.
    """
    pairs = [
        (setting, label, view, metric)
        for setting, results in tables.items()
        if against in results
        for view, metric in headlines(results[against][0]).items()
        for label, runs in results.items()
        if label != against and not runs[0].get("reference")
        if values(runs, which, metric) and values(results[against], which, metric)
    ]
    tests = []
    for setting, label, _, metric in pairs:
        mine, other = tables[setting][label], tables[setting][against]
        tests.append(paired_test(values(mine, which, metric), values(other, which, metric)))
    return [
        Verdict(
            setting=setting,
            row=label,
            against=against,
            view=view,
            metric=metric,
            word=word,
            test=test,
            p=p,
            average=view == "generic"
            and any(is_average(tables[setting][row]) for row in (label, against)),
            clients=higher_and_lower(tables[setting][label], tables[setting][against])
            if view == "personal"
            else None,
        )
        for (setting, label, view, metric), test, (word, p) in zip(
            pairs, tests, judge(tests), strict=True
        )
    ]


def describe(found: Sequence[Verdict]) -> list[str]:
    """Return the verdicts in words: the tested metric, then one line per comparison."""
    if not found:
        return []
    tested = sum(one.p is not None for one in found)
    seeds = found[0].test.seeds
    head = f"Against {found[0].against}, paired over {seeds} seed{'s' if seeds != 1 else ''}"
    if tested:
        head += f": t test, Holm's correction over {tested} comparisons, level {LEVEL:.0%}"
    elif seeds < MIN_SEEDS:
        more = MIN_SEEDS - seeds
        head += f": undecided, a verdict needs {MIN_SEEDS} seeds, {more} more"
    lines = [f"{head}. Differences in points with 95 % intervals, each for itself."]
    return lines + [_sentence(one) for one in found]


def _sentence(one: Verdict) -> str:
    where = f"{one.setting}, " if one.setting else ""
    view = "generic balanced" if one.metric == "generic/balanced" else one.view
    mark = AVERAGE if one.average else ""
    difference = one.test.difference
    words = f"{where}{view}: {one.row} {one.word}, {mark}{100 * difference.mean:+z.1f}"
    if difference.half is not None:
        low, high = difference.mean - difference.half, difference.mean + difference.half
        words += f" [{100 * low:+z.1f}, {100 * high:+z.1f}]"
    if one.p is not None:
        words += f", p {one.p:z.3f}" if one.p >= 0.0005 else ", p < 0.001"
    if one.p is not None and one.test.effect is not None:
        words += f", effect size {one.test.effect:+z.1f}"
    if one.clients is not None:
        higher, lower = one.clients
        words += f"; {higher:.0%} of clients higher, {lower:.0%} lower (no test)"
    return words
