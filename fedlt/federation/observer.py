"""The observer: the experimenter's party, which no real federation has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlt.data.preparation import Preparation
from fedlt.data.shots import ShotGroups, groups_note, shot_groups
from fedlt.evaluation.headline import ScoredSet
from fedlt.federation.terms import Terms
from fedlt.progress import Progress

if TYPE_CHECKING:
    from fedlt.data import FederatedData


@dataclass(frozen=True, eq=False)
class Observer(Terms):
    """All data of a simulation: partition, counts and test set.

    The driver holds the observer, and orders with it: scoring, aimed faults, diagnostics, notes.
    Strategies and client tasks get no part of the observer.
    """

    data: FederatedData
    eval_features: NDArray[np.float32] | None = None  # (M, S * D, 1, 1) of a cache; None: no cache

    @cached_property
    def shots(self) -> ShotGroups:
        """The groups of classes, from the global training counts; fixed for the run."""
        evaluate = self.config.evaluate
        lists = evaluate.shot_classes.model_dump() if evaluate.shot_classes else None
        return shot_groups(self.data.class_counts, scheme=evaluate.shots, given=lists)

    def notes(self) -> list[str]:
        """Return the lines that a user should read before the run."""
        data = self.data
        scored_on = ScoredSet.of(data.eval_labels, data.num_classes, data.split)
        lines = [groups_note(self.shots, data.class_counts), self.strategy.note(self.plugin)]
        lines += [data.note(), *data.partition_notes, data.missing_note()]
        lines.append(scored_on.note(data.class_names))
        lines += [self.start.line] if self.start is not None else []
        lines += [part.note(self.config) for part in self.plugin.parts]
        single = int(((self.data.client_counts > 0).sum(axis=1) == 1).sum())
        masked = self.plugin.traits.masks_absent and self.config.prior.use == "local_masked"
        if single and masked and not self.strategy.traits.pools:
            lines.append(
                f"{single} of {self.num_clients} clients hold a single class: with prior.use "
                f"local_masked the shifted loss of {self.config.client.label} is 0 there"
            )
        return [line for line in lines if line]

    def preparation(self, progress: Progress | None = None) -> Preparation:
        """Return the argument of ``plugin.prepare``: privileged, with all clients' images."""
        return Preparation(
            self.config, self.data, self.seed, self.strategy.traits.pools, progress or Progress()
        )
