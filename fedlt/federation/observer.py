"""The observer: the experimenter's party, which no real federation has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlt.data.arrays import IntArray
from fedlt.data.preparation import Preparation
from fedlt.data.shots import ShotGroups, groups_note, shot_groups
from fedlt.errors import FedltError
from fedlt.evaluation.headline import ScoredSet
from fedlt.evaluation.local_test import LocalTest, local_test
from fedlt.federation.terms import Terms
from fedlt.models.freezing import training_note
from fedlt.progress import Progress

if TYPE_CHECKING:
    from fedlt.data import FederatedData
    from fedlt.evaluation import Metric


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

    @property
    def personal_shots(self) -> ShotGroups:
        """The groups of classes in the personal view."""
        return self.shots

    def as_known(self, metrics: dict[str, Metric], cids: IntArray) -> dict[str, Metric]:
        """Return personal metrics of the scored clients; the observer of a simulation knows all."""
        return metrics

    @cached_property
    def local_test(self) -> LocalTest:
        """The view of the clients' local tests; fixed for the run.

        Raises:
            FedltError: If the view is ``own`` and no test image belongs to a client.
        """
        data, scheme = self.data, self.config.evaluate.local_test
        return local_test(
            data.client_counts,
            np.bincount(data.eval_labels, minlength=data.num_classes),
            scheme=scheme,
            seed=self.config.seed,
            own_counts=self._own_counts() if scheme == "own" else None,
        )

    def _own_counts(self) -> IntArray:
        """Return the scored images (K, C) that belong to each client."""
        data = self.data
        scored_on = ScoredSet.of(data.eval_labels, data.num_classes, data.split).name
        if data.eval_clients is None:
            raise FedltError(
                "evaluate.local_test: own needs partition.scheme: natural and client numbers for "
                f"the {scored_on}, which are not known of {data.name!r} here"
            )
        own = data.eval_clients >= 0
        if not own.any():
            raise FedltError(
                f"evaluate.local_test: own: no image of the {scored_on} belongs to a client"
            )
        cells = data.eval_clients[own] * data.num_classes + data.eval_labels[own]
        counts = np.bincount(cells, minlength=self.num_clients * data.num_classes)
        return counts.reshape(self.num_clients, data.num_classes)

    def own_rows(self, cid: int) -> IntArray:
        """Return the ascending rows of the scored images that belong to client ``cid``."""
        order, ends = self._rows_by_client
        return order[ends[cid] : ends[cid + 1]]

    @cached_property
    def _rows_by_client(self) -> tuple[IntArray, IntArray]:
        """Rows of the scored images by client, and the ends (K + 1,) of the parts."""
        owners = self.data.eval_clients
        if owners is None:
            return np.empty(0, np.int64), np.zeros(self.num_clients + 1, np.int64)
        order = np.argsort(owners, kind="stable")
        return order, np.searchsorted(owners[order], np.arange(self.num_clients + 1))

    def notes(self) -> list[str]:
        """Return the lines that a user should read before the run."""
        data = self.data
        scored_on = ScoredSet.of(data.eval_labels, data.num_classes, data.split)
        lines = [groups_note(self.shots, data.class_counts), self.strategy.note(self.plugin)]
        lines += [data.note(), *data.partition_notes, data.missing_note()]
        lines.append(data.strangers_note(named=self.config.report.client_names))
        lines.append(scored_on.note(data.class_names))
        lines += self.start.lines if self.start is not None else []
        lines += self._frozen_notes()
        lines += [part.note(self.config) for part in self.plugin.parts]
        single = int(((self.data.client_counts > 0).sum(axis=1) == 1).sum())
        masked = self.plugin.traits.masks_absent and self.config.prior.use == "local_masked"
        if single and masked and not self.strategy.traits.pools:
            lines.append(
                f"{single} of {self.num_clients} clients hold a single class: with prior.use "
                f"local_masked the shifted loss of {self.config.client.label} is 0 there"
            )
        if self.config.report.client_names and not data.client_names:
            lines.append("report.client_names: the clients of this partition have no names")
        return [line for line in lines if line]

    def _frozen_notes(self) -> list[str]:
        """Return lines about frozen parts and cached features of the backbone."""
        chosen = self.config.model
        if not chosen.freeze:
            return []
        lines = [training_note(self.build_model())]
        if chosen.weights is None:
            lines.append("model.freeze: the frozen parts are random: there is no model.weights")
        if chosen.cache_features:
            lines.append("model.cache_features: features of the frozen backbone are cached")
        return lines

    def preparation(self, progress: Progress | None = None) -> Preparation:
        """Return the argument of ``plugin.prepare``: privileged, with all clients' images."""
        return Preparation(
            self.config, self.data, self.seed, self.strategy.traits.pools, progress or Progress()
        )
