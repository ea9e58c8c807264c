"""Recompute every metric of a finished run from its saved evaluations; nothing is trained.

    evaluations/round_R.npz -> other groups, view or mask -> a line as of rounds.jsonl -> a result

Under the run's own settings the result is that of the run. Numbers that do not come from an
evaluation (training losses, local steps, diagnostics, seconds) are copied from ``rounds.jsonl``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.data.shots import ShotGroups, parse_groups, shot_groups
from fedlt.errors import FedltError, nearest
from fedlt.evaluation import (
    client_accuracies,
    coverage_metrics,
    generic_metrics,
    personal_metrics,
    summarise,
)
from fedlt.evaluation.personal_metrics import client_recalls
from fedlt.evaluation.priors import prior_metrics
from fedlt.runs.evaluations import evaluation_path

if TYPE_CHECKING:
    from fedlt.evaluation import Metric, PersonalScores
    from fedlt.runs.directory import RunDirectory
    from fedlt.runs.evaluations import Evaluation

_VIEWS = ("generic/", "personal/")
MASKS = ("none", "held", "test")


@dataclass(frozen=True)
class Cut:
    """Choices under which metrics are recomputed: class groups, local test set, mask."""

    shots: str | None = None  # a scheme, or many/medium/few class ids; None: the run's groups
    local_test: str | None = None  # exact, sampled, reference or own; None: the run's view
    mask: str = "none"  # of personal and generic predictions in the personal view

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise FedltError(f"mask: unknown {self.mask!r}{nearest(self.mask, MASKS)}")


def rescore(directory: RunDirectory, cut: Cut) -> dict[str, Any]:
    """Return a finished run's result with recomputed metrics, and accuracies under test priors.

    Args:
        directory: The run; nothing is written there.
        cut: Class groups, local test set and mask of the metrics.

    Returns:
        The content of ``result.json`` with new numbers, and the last round's ``client_accuracies``.

    Raises:
        FedltError: If the run is not finished, or has not saved what the cut needs.
    """
    if directory.state != "finished":
        raise FedltError(f"{directory.path} is no finished run")
    result, config = directory.result(), directory.config()
    shots: ShotGroups | None = None
    records: list[dict[str, Any]] = []
    clients: list[float] | None = None  # after the last round
    for stored in directory.rounds():
        if not any(name.startswith(_VIEWS) for name in stored):  # diagnostics alone
            records.append(stored)
            continue
        path = evaluation_path(directory.path, stored["round"])
        evaluation = directory.evaluation(stored["round"])
        if shots is None:
            shots = _groups(result, cut, evaluation)
        try:
            values = _cut(evaluation, cut, shots, has_generic=result["generic_model"] != "none")
            clients = _client_accuracies(evaluation, cut)
        except FedltError as error:
            raise FedltError(f"{path}: {error}") from error
        records.append({**_kept(stored), **values})
    chosen = config.evaluate.selected_round
    try:
        early = result.get("stopped") is not None
        moments = summarise(records, result["rounds"], selected_round=chosen, early=early)
    except FedltError as error:
        raise FedltError(f"{directory.path / 'rounds.jsonl'}: {error}") from error
    known: dict[str, Any] = {
        "shots": None if shots is None else shots.to_json(),
        "client_accuracies": clients,
    }
    if cut.local_test is not None:
        known["local_test"] = cut.local_test
    return result | moments | known


def _kept(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a line that cannot be recomputed from saved evaluations."""
    cut = ("generic/", "personal/")
    return {k: v for k, v in stored.items() if not k.startswith(cut) or k == "personal/steps"}


def _groups(result: dict[str, Any], cut: Cut, evaluation: Evaluation) -> ShotGroups:
    counts, own = evaluation.client_counts.sum(axis=0), result["shots"]
    if cut.shots is None or cut.shots == own["scheme"] == "given":
        return ShotGroups.from_json(own)
    if cut.shots == "given":
        raise FedltError("shots given: the run has no class lists; name them as 0-2/3-6/7-9")
    if "/" in cut.shots:
        return parse_groups(cut.shots, len(counts))
    return shot_groups(counts, scheme=cut.shots)


def _cut(
    evaluation: Evaluation, cut: Cut, shots: ShotGroups, *, has_generic: bool
) -> dict[str, Metric]:
    """Return the metrics of one evaluation round."""
    counts, participated = evaluation.client_counts, evaluation.participated
    metrics = generic_metrics(evaluation.generic, shots)
    recalls = None
    if evaluation.personal is not None:
        view = evaluation.view(cut.local_test)
        scores = _masked(evaluation.personal, cut.mask)
        metrics |= personal_metrics(
            scores, view, shots, participated=participated, has_generic=has_generic
        )
        recalls = client_recalls(scores, view)
        recalls = recalls[view.local_counts[scores.cids].sum(axis=1) > 0]
    confusion = evaluation.generic.confusion[0] if evaluation.generic.heads else None
    metrics |= prior_metrics(
        counts.sum(axis=0),
        confusion=confusion,
        client_recalls=recalls,
        test_counts=evaluation.test_counts,
    )
    return metrics | coverage_metrics(participated, counts, shots)


def _client_accuracies(evaluation: Evaluation, cut: Cut) -> list[float] | None:
    """Return the evaluated clients' accuracies; None in a round of the generic view only."""
    if evaluation.personal is None:
        return None
    view = evaluation.view(cut.local_test)
    scores = _masked(evaluation.personal, cut.mask)
    own: list[float] = client_accuracies(scores, view)[:, 0].tolist()
    return own


def _masked(scores: PersonalScores, mask: str) -> PersonalScores:
    """Return the scores with masked hits in place of those without a mask."""
    if mask == "held":
        return replace(scores, hits=scores.hits_held, generic_hits=scores.generic_hits_held)
    if mask == "test":
        hits, base = scores.hits_test, scores.generic_hits_test
        if hits is None or base is None:
            raise FedltError(
                "mask test: predictions masked by the local test's classes were not counted; "
                "only evaluate.local_test: reference counts them"
            )
        return replace(scores, hits=np.asarray(hits), generic_hits=np.asarray(base))
    return scores
