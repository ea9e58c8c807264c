"""A pool of synthetic images inside a run: what all clients share of it, and one client's part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlt.client import Batch, ClientData, batches_with_rows
from fedlt.data.augment import normalize
from fedlt.data.curriculum import draw_epoch, most_progress, own_factors, plan_epoch
from fedlt.errors import FedltError
from fedlt.models.modes import evaluating

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.data.federated import FederatedData
    from fedlt.data.pool import Pool

__all__ = [
    "LEVELS",
    "TailData",
    "check_levels",
    "progress_epochs",
    "true_probability",
    "use_pool",
]

IMAGES, LABELS, SOURCES, STAGES = (
    f"pool.{name}" for name in ("images", "labels", "sources", "stages")
)
LEVELS = "pool.levels"


def check_levels(levels: Sequence[float]) -> None:
    """Refuse levels that do not ascend or are not in [0, 1).

    Raises:
        ValueError: One line.
    """
    if list(levels) != sorted(set(levels)) or not all(0 <= level < 1 for level in levels):
        raise ValueError(f"levels: {list(levels)} must ascend, in [0, 1)")


def use_pool(
    pool: Pool, data: FederatedData, *, levels: Sequence[float], min_score: float | None
) -> dict[str, NDArray[np.generic]]:
    """Return the images of a pool that a run may use, as arrays for all clients.

    Args:
        pool: The pool.
        data: What the run trains on.
        levels: Those to be used; none: all.
        min_score: Lower scores are left out.

    Returns:
        ``pool.images``, ``pool.labels``, ``pool.sources`` (positions in the run's training images),
        ``pool.stages`` (positions in ``pool.levels``), ``pool.levels`` (ascending).

    Raises:
        FedltError: If the pool does not fit the data, or no image is left.
    """
    size = data.train_images.shape[1:]
    if pool.images.shape[1:] != size:
        raise FedltError(f"its images are {pool.images.shape[1:]}, the training images {size}")
    if min_score is not None and pool.scores is None:
        raise FedltError(f"min_score: {min_score} needs scores, and it has none")
    known = sorted(set(pool.levels.tolist()))
    for level in levels:
        if round(level, 6) not in known:
            raise FedltError(f"levels: it has no image of level {level}; it has {known}")
    place = np.full(max(int(pool.sources.max()), int(data.pool_indices.max())) + 1, -1)
    place[data.pool_indices] = np.arange(len(data.pool_indices))
    sources = place[pool.sources]
    used, chosen = sources >= 0, [round(level, 6) for level in levels] or known
    wrong = used & (data.train_labels[sources] != pool.labels)
    if wrong.any():
        first = int(wrong.argmax())
        raise FedltError(
            f"image {first} is of class {pool.labels[first]}, its source "
            f"{pool.sources[first]} of class {data.train_labels[sources[first]]}"
        )
    passed = used & np.isin(pool.levels, chosen)
    if min_score is not None and pool.scores is not None:
        passed &= pool.scores >= min_score
    if not passed.any():
        why = "" if used.any() else ", and none is made from an image that this run trains on"
        raise FedltError(f"no image is left of {len(pool)}{why}; min_score is {min_score}")
    kept = pool.take(passed)
    _log(pool, used, passed)
    return {
        IMAGES: kept.images,
        LABELS: kept.labels,
        SOURCES: sources[passed],
        STAGES: np.searchsorted(chosen, kept.levels),
        LEVELS: np.array(chosen),
    }


def _log(pool: Pool, used: NDArray[Any], passed: NDArray[Any]) -> None:
    """Say how many images of each level are in use."""
    rates = [
        f"level {level:g}: {int(passed[pool.levels == level].sum())} of {int(of)}"
        for level in sorted(set(pool.levels.tolist()))
        if (of := used[pool.levels == level].sum())
    ]
    logging.getLogger(__name__).info("pool: %s images in use", ", ".join(rates))


@dataclass(frozen=True)
class TailData:
    """One client's images, and behind them the synthetic ones made from them."""

    data: ClientData  # images (n + m, ...) and labels (n + m,)
    num_real: int  # n
    stages: Tensor  # (m,) of the synthetic images
    sources: Tensor  # (m,) of the synthetic images
    is_tail: Tensor  # bool (C,)

    @classmethod
    def of(cls, client: Client, tail_below: float) -> Self | None:
        """Return it, or None where the client holds no image of a tail class.

        Args:
            client: The client; the file's prior says how frequent classes are.
            tail_below: A class is of the tail if its share is below this over C.
        """
        data = client.data
        shares = client.tensors["log_prior"].softmax(dim=0).cpu()
        is_tail = shares < tail_below / len(shares)
        indices = data.indices.to(data.labels.device)
        labels = data.labels[indices]
        if not bool(is_tail[labels.cpu()].any()):
            return None
        images, stages, sources = data.images[indices], torch.zeros(0), torch.zeros(0)
        if IMAGES in client.material:
            of_tail = is_tail.to(labels.device)[client.material[LABELS]]
            mine = torch.isin(client.material[SOURCES], indices) & of_tail
            images = torch.cat([images, client.material[IMAGES][mine]])
            labels = torch.cat([labels, client.material[LABELS][mine]])
            stages, sources = (client.material[name][mine].cpu() for name in (STAGES, SOURCES))
        own = replace(data, images=images, labels=labels, indices=torch.arange(len(indices)))
        return cls(own, len(indices), stages, sources, is_tail)

    @property
    def labels(self) -> Tensor:
        """(n,) of the real images, on the CPU."""
        return self.data.labels[: self.num_real].cpu()

    def synthetic(self, stage: int | None, *, without: Tensor | None = None) -> Tensor:
        """Return the rows of the synthetic images of a stage, of all stages if it is None."""
        fits = torch.ones(len(self.stages), dtype=torch.bool)
        if stage is not None:
            fits &= self.stages == stage
        if without is not None:
            fits[without - self.num_real] = False
        return fits.nonzero().flatten() + self.num_real

    def held_out(self, stages: int) -> Tensor:
        """Return rows (V, stages): one image of every stage, of each source that has all."""
        found = []
        for source in sorted(set(self.sources.tolist())):
            own = [((self.sources == source) & (self.stages == s)).nonzero() for s in range(stages)]
            if all(len(rows) for rows in own):
                found.append(torch.cat([rows[0] for rows in own]) + self.num_real)
        return torch.stack(found) if found else torch.zeros((0, stages), dtype=torch.int64)

    def none(self) -> Tensor:
        """Return no rows: real tail images fill the tail."""
        return torch.zeros(0, dtype=torch.int64)

    def epoch(
        self,
        client: Client,
        epoch: int,
        keep: float,
        cap: float,
        generator: torch.Generator,
        synthetic: Tensor,
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch: see :mod:`fedlt.data.curriculum`."""
        labels = self.labels
        rare = self.is_tail[labels]
        tail, others = rare.nonzero().flatten(), (~rare).nonzero().flatten()
        counts = labels.bincount(minlength=len(self.is_tail))  # (C,)
        plan = plan_epoch(
            len(tail),
            len(others),
            share=float(self.is_tail[counts > 0].double().mean()),
            keep=keep,
            cap=cap,
            least=client.local.batch_size,
        )
        rows = draw_epoch(tail, others, synthetic, plan, generator)
        own = own_factors(rows, labels, counts).to(self.data.labels.device)
        drawn = replace(self.data, indices=rows)
        for images, positions in batches_with_rows(client, epoch, drawn):
            extra, origin = {"own": own[positions]}, (self.data.images, positions)
            yield Batch(images, self.data.labels[positions], extra, origin)


def progress_epochs(
    client: Client, own: TailData, stages: int, shown: Callable[[Tensor], Iterator[Batch]]
) -> Iterator[Batch]:
    """Yield a real epoch, then one of the level that it helped most (algorithm 2).

    Args:
        client: Its model is read before and after the first epoch.
        own: Its images.
        stages: Levels of the pool.
        shown: Makes the batches of an epoch from the rows of the synthetic images in it.
    """
    held_out = own.held_out(stages)
    before = true_probability(client, own, held_out) if len(held_out) else []
    yield from shown(own.none())
    after = true_probability(client, own, held_out) if len(held_out) else []
    stage = most_progress(before, after) if len(held_out) else None
    yield from shown(own.synthetic(stage, without=held_out.flatten()))


@torch.no_grad()
def true_probability(client: Client, own: TailData, rows: Tensor) -> list[float]:
    """Return the mean probability of the true class, by stage, that the client's model gives now.

    Args:
        client: Its model is read, in evaluation mode.
        own: Its images.
        rows: (V, stages), V at least 1.
    """
    model, data = client.model, own.data
    found = []
    with evaluating(model):
        for chosen in rows.T.to(data.labels.device):
            logits = model(normalize(data.images[chosen], data.mean, data.std))
            probability = client.plugin.predict(logits).softmax(dim=-1)
            found.append(float(probability.gather(1, data.labels[chosen, None]).mean()))
    return found
