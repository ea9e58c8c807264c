"""Early stopping: a run ends when a metric of the validation images has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fedlt.errors import FedltError, nearest
from fedlt.evaluation.metrics import METRICS, spec_of

if TYPE_CHECKING:
    from fedlt.config.stop_section import StopConfig
    from fedlt.evaluation.rounds import RoundRecord


_VIEWS = ("generic/", "personal/")


def check_metric(stop: StopConfig, *, has_generic: bool) -> None:
    """Refuse a metric that no run has, or that has no better value.

    Args:
        stop: The rule.
        has_generic: False for methods without a generic model.

    Raises:
        FedltError: One line that names the metric.
    """
    name = stop.metric
    if spec_of(name) not in METRICS or not name.startswith(_VIEWS):
        known = [one.name for one in METRICS if one.best and one.name.startswith(_VIEWS)]
        raise FedltError(f"stop.metric: unknown metric {name!r}{nearest(name, known)}")
    if not spec_of(name).best:
        raise FedltError(f"stop.metric: no value of {name} is better than another; take accuracy")
    if name.startswith("generic/") and not has_generic:
        raise FedltError(f"stop.metric: {name} needs a generic model, and the method has none")


def best_round(records: Iterable[RoundRecord], metric: str) -> tuple[int, int] | None:
    """Return the first round with the best value so far, and the number of later evaluations.

    Args:
        records: The lines of ``rounds.jsonl``, in order.
        metric: Its name; lines without a value do not count.

    Returns:
        (round, evaluations since then); None without any value.
    """
    sign = -1.0 if spec_of(metric).best == "min" else 1.0
    best, found, later = -math.inf, None, 0
    for record in records:
        value = record.get(metric)
        if value is None or math.isnan(value):
            continue
        later += 1
        if sign * value > best or found is None:
            best, found, later = sign * value, int(record["round"]), 0
    return None if found is None else (found, later)


def stopped(stop: StopConfig | None, records: Iterable[RoundRecord]) -> dict[str, Any] | None:
    """Return why a run ends after these rounds; None if it goes on.

    Args:
        stop: The rule; None: a run goes on to its last round.
        records: The lines of ``rounds.jsonl``, in order.
    """
    if stop is None:
        return None
    kept: list[Mapping[str, Any]] = list(records)
    found = best_round(kept, stop.metric)
    if found is None or found[1] < stop.patience:
        return None
    best = found[0]
    value = next(record[stop.metric] for record in kept if int(record["round"]) == best)
    return {"metric": stop.metric, "patience": stop.patience, "best_round": best, "best": value}
