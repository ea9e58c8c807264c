"""Summaries of a run over its rounds: final, last_k, selected, best_on_test.

Rounds count from 1 to ``rounds``. A record is one line of ``rounds.jsonl``: ``round`` and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedlt.errors import FedltError
from fedlt.evaluation.generic import Metric, mean
from fedlt.evaluation.metrics import spec_of

RoundRecord = Mapping[str, Any]  # "round" and metrics by name


def last_rounds(rounds: int) -> list[int]:
    """Return the last k = min(10, ceil(rounds / 20)) rounds, ascending."""
    k = min(10, math.ceil(rounds / 20))
    return list(range(rounds - k + 1, rounds + 1))


def rounds_to_evaluate(
    rounds: int, *, every: int, personal_every: int | None = None, chosen: int | None = None
) -> tuple[set[int], set[int]]:
    """Return the rounds after which the generic view is scored, and those for the personal view.

    The generic view is scored every ``every`` rounds, the personal view every ``personal_every``
    rounds, and both in the last k rounds. A round of the personal view is also a round of the
    generic view, since ``personal/generic`` needs both.

    Args:
        rounds: Rounds of the run.
        every: Interval of the generic view.
        personal_every: Interval of the personal view; None: ``every``.
        chosen: An additional round for both views.
    """
    tail = {*last_rounds(rounds)} | ({chosen} if chosen else set())
    step = every if personal_every is None else personal_every
    personal = set(range(step, rounds + 1, step)) | tail
    return set(range(every, rounds + 1, every)) | personal, personal


def _of_round(records: Iterable[RoundRecord], number: int) -> RoundRecord:
    by_round = {int(record["round"]): record for record in records}
    if number not in by_round:
        near = min(by_round, key=lambda r: (abs(r - number), r), default=None)
        raise FedltError(f"round {number} was not evaluated; nearest evaluated round: {near}")
    return by_round[number]


def final(records: Iterable[RoundRecord], rounds: int) -> dict[str, Metric]:
    """Return the metrics of the last round, with its number as ``round``."""
    return dict(_of_round(records, rounds))


def selected(records: Iterable[RoundRecord], number: int) -> dict[str, Metric]:
    """Return the metrics of a round that was chosen beforehand, on validation images.

    Raises:
        FedltError: If the round was not evaluated, or lacks one of the views.
    """
    record = dict(_of_round(records, number))
    for view in ("generic/accuracy", "personal/accuracy"):
        if view not in record:
            raise FedltError(f"round {number} has no {view}: evaluate both views in that round")
    return record


def last_k(
    records: Iterable[RoundRecord], rounds: int, *, early: bool = False
) -> dict[str, Metric]:
    """Return ``k``, and each metric's mean over the last k rounds; None if one value is None.

    Args:
        records: The lines of ``rounds.jsonl``.
        rounds: Rounds of the run.
        early: True if the run was stopped early: nobody knew its last rounds beforehand, so the
            mean is over those of them in which both views were scored.

    Raises:
        FedltError: If one of the last k rounds was not evaluated.
    """
    kept, numbers = list(records), last_rounds(rounds)
    if early:
        scored = {int(record["round"]) for record in kept if "personal/accuracy" in record}
        numbers = [number for number in numbers if number in scored or number == rounds]
    tail = [_of_round(kept, number) for number in numbers]
    names = [name for name in tail[-1] if "/" in name and all(name in record for record in tail)]
    means: dict[str, Metric] = {"k": len(tail)}
    return means | {name: mean([record[name] for record in tail]) for name in names}


def best_on_test(records: Iterable[RoundRecord]) -> dict[str, Metric]:
    """Return the best value of each metric over all evaluated rounds of both views.

    Every metric may have another best round. These values are for comparison with papers that chose
    rounds on the test set, never for verdicts. The best value is the maximum, but the minimum for
    nll, ece, hurt and std; counts are left out.
    """
    values: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.items():
            view = name.split("/", 1)[0]
            if view in ("generic", "personal") and value is not None:
                values.setdefault(name, []).append(value)
    return {
        name: (min if spec_of(name).best == "min" else max)(seen)
        for name, seen in values.items()
        if spec_of(name).best
    }


def summarise(
    records: Sequence[RoundRecord],
    rounds: int,
    *,
    selected_round: int | None = None,
    early: bool = False,
) -> dict[str, dict[str, Metric] | None]:
    """Return the four summaries of ``result.json``; ``selected`` is None without a chosen round.

    ``rounds`` is the number of rounds done; ``early`` as in :func:`last_k`.
    """
    return {
        "final": final(records, rounds),
        "last_k": last_k(records, rounds, early=early),
        "selected": None if selected_round is None else selected(records, selected_round),
        "best_on_test": best_on_test(records),
    }
