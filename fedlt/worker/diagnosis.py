"""Diagnostics of a run, every few rounds: what happens inside, beside what is scored.

Diagnostics are computed in the driver, from the models after a round: no engine takes part,
nothing of the run is written, and torch's random state is put back. Formulas: ``docs/metrics.md``.

    features of some training images   neural collapse, class vectors, pruned energy, tail gradient
    the same after every block         share of their variance in a few directions
    a next task of some clients, tried  drift of their updates
    predictions of the same clients     agreement of personal and generic model
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedlt.data.arrays import IntArray
from fedlt.data.augment import normalize
from fedlt.evaluation.collapse import class_vectors, neural_collapse, pruned_energy
from fedlt.evaluation.counting import fused_logits
from fedlt.evaluation.drift import agreement, tail_gradient, update_drift
from fedlt.evaluation.local_test import cap_images
from fedlt.evaluation.rank import rank_metrics
from fedlt.machine.maps import placed
from fedlt.rng import numpy_generator, set_torch_state, torch_state
from fedlt.worker.scorer import Host

if TYPE_CHECKING:
    from fedlt.evaluation import Metric
    from fedlt.federation import ClientShares
    from fedlt.federation.evaluator import Evaluator, Standing
    from fedlt.strategy import HeadFunction


class Diagnosis:
    """Measures the models after a round; no measurement depends on an earlier round."""

    def __init__(self, shares: ClientShares, evaluator: Evaluator) -> None:
        self._observer, self._shares = evaluator.observer, shares
        self._evaluator = evaluator
        self._config = self._observer.config.diagnostics

    def is_due(self, round_: int, *, last: bool) -> bool:
        """Return True if the experiment file asks for diagnostics after a round."""
        every = self._config.every
        return every is not None and (round_ % every == 0 or last)

    def measure(self, standing: Standing) -> dict[str, Metric]:
        """Return ``diagnostics/...`` of the models after a round."""
        before = torch_state()
        try:
            values = {**self._of_features(standing), **self._of_clients(standing)}
        finally:
            set_torch_state(before)
        return {f"diagnostics/{name}": value for name, value in values.items()}

    @cached_property
    def _host(self) -> Host:
        return Host(self._shares, self._observer)

    @cached_property
    def _positions(self) -> IntArray:
        """Positions of the training images that features are computed of: up to so many a class."""
        data, seed = self._observer.data, self._observer.config.seed
        known = data.partition.covered()
        return known[cap_images(data.train_labels[known], self._config.images, seed=seed)]

    @cached_property
    def _probes(self) -> list[int]:
        """Clients that diagnostics look at: the same in every round and for every method."""
        sizes, config = self._observer.data.client_sizes, self._observer.config
        holders = np.flatnonzero(sizes > 0)
        draw = numpy_generator(config.seed, "diagnosed-clients")
        chosen = draw.choice(holders, min(self._config.clients, len(holders)), replace=False)
        return sorted(int(cid) for cid in chosen)

    @torch.no_grad()
    def _of_features(self, standing: Standing) -> dict[str, Metric]:
        """Measure the generic model on training images."""
        heads = self._host.scorer.load_generic(self._evaluator.request(standing, ()))
        if not heads:
            return {}
        data, shots = self._observer.data, self._evaluator.shots
        features = self._features()  # (N, S, D)
        labels = torch.from_numpy(data.train_labels[self._positions]).long()
        size, predict = self._observer.config.evaluate.batch_size, self._observer.plugin.predict
        first = next(iter(heads.values()))
        logits = fused_logits(features, first, predict, block_size=size).cpu()
        merged, weights = features.mean(dim=1).cpu(), _weights(heads, features.shape[-1])
        primary = weights.get(next(iter(heads)))
        values = neural_collapse(merged, labels, weight=primary, predicted=logits.argmax(dim=1))
        for name, weight in weights.items():
            found = class_vectors(weight, torch.from_numpy(data.class_counts), shots)
            found |= pruned_energy(merged, labels, weight, shots)
            values |= {f"{name}/{word}": value for word, value in found.items()}
        values |= tail_gradient(logits, labels, data.class_counts, shots.few)
        return values | self._ranks()

    def _ranks(self) -> dict[str, Metric]:
        """Measure the generic model after every block; {} for a backbone without blocks."""
        model = self._host.worker.model
        backbone: Any = model.backbone
        if not getattr(backbone, "num_blocks", 0):
            return {}
        return rank_metrics(self._features(backbone.block_features).cpu(), model.stream_names)

    def _features(self, extract: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the outputs of a function for the training images; None: the model's features."""
        worker, data = self._host.worker, self._observer.data
        images = placed(data.train_images, torch.device("cpu"))
        mean, std = (torch.as_tensor(v, device=worker.device) for v in (data.mean, data.std))
        blocks = np.array_split(
            self._positions, -(-len(self._positions) // self._observer.config.evaluate.batch_size)
        )
        worker.model.eval()
        extract = extract or worker.model.features
        return torch.cat(
            [extract(normalize(images[b].to(worker.device), mean, std)) for b in blocks]
        )

    def _of_clients(self, standing: Standing) -> dict[str, Metric]:
        """Measure some clients' predictions and their next update, which is then thrown away."""
        if self._observer.strategy.traits.pools:
            return {}
        values = {"agreement": self._agreement(standing), **self._drift(standing)}
        return values | {"clients": len(self._probes)}

    def _drift(self, standing: Standing) -> dict[str, Metric]:
        worker, broadcast = self._host.worker, standing.broadcast
        names = [n for n in worker.model.parameter_names("shared") if n in broadcast]
        updates: list[Mapping[str, Tensor]] = []
        trained: set[str] = set()  # what an answer fills otherwise, such as prototypes, is no step
        for cid in self._probes:
            client = worker.client(
                cid,
                standing.round + 1,
                broadcast,
                fixed=standing.fixed,
                personal=dict(standing.personal.get(cid, {})),
                global_counts=standing.global_counts,
            )
            update, state = worker.train(client), worker.model.state()
            trained |= {n for n in names if not torch.equal(state[n], client.broadcast[n])}
            given = [name for name in names if name in update.sums]
            own = {name: update.sums[name].detach().cpu().clone() for name in given}
            if update.is_step:
                own = {name: broadcast[name].cpu() + step for name, step in own.items()}
            updates.append(own)
        shared = trained.intersection(*updates)
        return update_drift(updates, {name: broadcast[name].cpu() for name in shared})

    def _agreement(self, standing: Standing) -> Metric:
        seen = [cid for cid in self._probes if self._evaluator.has_own_model(standing, cid)]
        generic, own = self._host.predict(self._evaluator.request(standing, seen))
        if generic is None or not own:
            return None
        data = self._observer.data
        labels = torch.from_numpy(data.eval_labels).long()
        counts = [data.client_counts[cid] for cid in own]
        return agreement(list(own.values()), generic, labels, counts)


def _weights(heads: Mapping[str, HeadFunction], num_features: int) -> dict[str, Tensor]:
    """Return the class vectors (C, D) of the heads that have them; of several streams the mean."""
    found = {}
    for name, head in heads.items():
        weight = head.keywords.get("weight") if isinstance(head, partial) else None
        weight = getattr(head, "weight", None) if weight is None else weight
        if isinstance(weight, Tensor) and weight.ndim == 3:
            weight = weight.mean(dim=0)
        if isinstance(weight, Tensor) and weight.ndim == 2 and weight.shape[1] == num_features:
            found[name] = weight.detach().cpu()
    return found
