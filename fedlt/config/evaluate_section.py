"""The section ``evaluate``: rounds, class groups and test views. Metrics: docs/metrics.md."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from fedlt.config.ranges import Count, Whole
from fedlt.config.section import Section


class ShotClassesConfig(Section):
    """Groups of classes by class id; a class in no list is in no group."""

    many: tuple[Whole, ...] = ()
    medium: tuple[Whole, ...] = ()
    few: tuple[Whole, ...] = ()


class EvaluateConfig(Section):
    """Evaluation: rounds, class groups, test views."""

    every: Count = 1  # rounds between generic evaluations; the last round always has one
    personal_every: Count | None = None  # rounds between personal evaluations; None: as `every`
    shots: Literal["auto", "count", "rank", "cumulative", "given"] = (
        "auto"  # how many / medium / few are cut
    )
    shot_classes: ShotClassesConfig | None = None  # the groups themselves, for shots: given
    local_test: Literal["exact", "sampled", "reference", "own"] = "exact"  # each client's test view
    clients: Literal["all"] | Count = "all"  # clients in the personal view
    selected_round: Count | None = None  # a round fixed on data.split: tune, reported as `selected`
    batch_size: Count = 500  # images per forward pass

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        if self.shots == "given" and self.shot_classes is None:
            raise ValueError("shots: given needs shot_classes: {many: [...], few: [...]}")
        if self.shots != "given" and self.shot_classes is not None:
            raise ValueError(f"shot_classes: needs shots: given, not {self.shots}")
        return self
