"""Shares of clients that are better off with a method: counted, not tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlt.evaluation.personal_metrics import ROUNDING, client_accuracies
from fedlt.runs.directory import RunDirectory


def _last_accuracies(run: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
    """Return the evaluated clients' accuracies (E,) after the last round; None if not counted.

    A rescored run has the accuracies in its result, as ``client_accuracies``.
    """
    if "client_accuracies" in run:
        own = run["client_accuracies"]
        return None if own is None else np.asarray(own, dtype=np.float64)
    if "path" not in run:
        return None
    last = RunDirectory(Path(run["path"])).evaluation(int(run["rounds"]))
    if last.personal is None:
        return None
    return client_accuracies(last.personal, last.view())[:, 0]


def higher_and_lower(
    runs: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]
) -> tuple[float, float] | None:
    """Return the shares of clients, over all seeds, above and below the reference method.

    Each client is compared with itself under the reference method: same seed, same images, after
    the last round. Clients without a local test set are left out; None if a run has no personal
    scores.
    """
    gaps = []
    for run, other in zip(runs, reference, strict=True):
        mine, theirs = _last_accuracies(run), _last_accuracies(other)
        if mine is None or theirs is None:
            return None
        gaps.append(mine - theirs)
    gap = np.concatenate(gaps)
    gap = gap[~np.isnan(gap)]
    if gap.size == 0:
        return None
    return float((gap > ROUNDING).mean()), float((gap < -ROUNDING).mean())
