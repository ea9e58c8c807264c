"""Pool of synthetic images inside a run: arrays for all clients, and the part of one client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlt.client import Batch, ClientData, batches_with_rows
from fedlt.data.augment import normalize
from fedlt.errors import FedltError
from fedlt.generators.curriculum import (
    EpochPlan,
    draw_epoch,
    most_progress,
    own_factors,
    plan_epoch,
    plan_hard,
)
from fedlt.generators.pool import check_pixels
from fedlt.models.modes import evaluating

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.data.federated import FederatedData
    from fedlt.generators.pool import Pool

IMAGES, LABELS, SOURCES, STAGES = (
    f"pool.{name}" for name in ("images", "labels", "sources", "stages")
)
LEVELS = "pool.levels"
HARD = "pool.hard"  # bool (N,): mask of hard training images, if single images are hard


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
        data: Data of the run.
        levels: Levels to use; empty: all levels.
        min_score: Images with a lower score are left out.

    Returns:
        ``pool.images``, ``pool.labels``, ``pool.sources`` (rows in the run's training images),
        ``pool.stages`` (positions in ``pool.levels``), ``pool.levels`` (ascending).

    Raises:
        FedltError: If the pool does not fit the data, or no image is left.
    """
    check_pixels(data)
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
    """Log the number of images in use at each level."""
    rates = [
        f"level {level:g}: {int(passed[pool.levels == level].sum())} of {int(of)}"
        for level in sorted(set(pool.levels.tolist()))
        if (of := used[pool.levels == level].sum())
    ]
    logging.getLogger(__name__).info("pool: %s images in use", ", ".join(rates))


@dataclass(frozen=True)
class TailData:
    """Images of one client: n real images, then m synthetic images made from its hard images.

    Hard images are the images of the client's tail classes, or those in the mask ``pool.hard``.
    """

    data: ClientData  # images (n + m, ...) and labels (n + m,)
    num_real: int  # n, the number of real images
    stages: Tensor  # (m,) stages of the synthetic images
    sources: Tensor  # (m,) source rows of the synthetic images
    is_hard: Tensor  # bool (n,), on the CPU
    by_class: bool  # True: whole classes are hard; False: single images are

    @classmethod
    def of(cls, client: Client, tail_below: float) -> Self | None:
        """Return the tail data of a client; None if the client holds no hard image.

        Args:
            client: The client; its ``log_prior`` gives the shares of the classes.
            tail_below: Threshold: a class is in the tail if its share is below ``tail_below`` / C.
                Not used if there is a mask ``pool.hard``.
        """
        data, chosen = client.data, client.material.get(HARD)
        indices = data.indices.to(data.labels.device)
        labels = data.labels[indices]
        if chosen is None:
            shares = client.tensors["log_prior"].softmax(dim=0).cpu()
            is_hard = (shares < tail_below / len(shares))[labels.cpu()]
        else:
            is_hard = chosen[indices].cpu()
        if not bool(is_hard.any()):
            return None
        images, stages, sources = data.images[indices], torch.zeros(0), torch.zeros(0)
        if IMAGES in client.material:
            hard = indices[is_hard.to(indices.device)]
            mine = torch.isin(client.material[SOURCES], hard)
            images = torch.cat([images, client.material[IMAGES][mine]])
            labels = torch.cat([labels, client.material[LABELS][mine]])
            stages, sources = (client.material[name][mine].cpu() for name in (STAGES, SOURCES))
        own = replace(data, images=images, labels=labels, indices=torch.arange(len(indices)))
        return cls(own, len(indices), stages, sources, is_hard, chosen is None)

    @property
    def labels(self) -> Tensor:
        """Classes (n,) of the real images, on the CPU."""
        return self.data.labels[: self.num_real].cpu()

    def synthetic(self, stage: int | None, *, without: Tensor | None = None) -> Tensor:
        """Return the rows of a stage's synthetic images (None: all stages), but not ``without``."""
        fits = torch.ones(len(self.stages), dtype=torch.bool)
        if stage is not None:
            fits &= self.stages == stage
        if without is not None:
            fits[without - self.num_real] = False
        return fits.nonzero().flatten() + self.num_real

    def held_out(self, stages: int) -> Tensor:
        """Return held-out rows (V, stages): one image per stage, for V sources with all stages."""
        found = []
        for source in sorted(set(self.sources.tolist())):
            own = [((self.sources == source) & (self.stages == s)).nonzero() for s in range(stages)]
            if all(len(rows) for rows in own):
                found.append(torch.cat([rows[0] for rows in own]) + self.num_real)
        return torch.stack(found) if found else torch.zeros((0, stages), dtype=torch.int64)

    def none(self) -> Tensor:
        """Return an empty list of synthetic rows, for an epoch of real images only."""
        return torch.zeros(0, dtype=torch.int64)

    def plan(self, keep: float, cap: float, least: int) -> EpochPlan:
        """Return the numbers of images in an epoch, see :mod:`fedlt.generators.curriculum`."""
        labels, hard = self.labels, int(self.is_hard.sum())
        if not self.by_class:
            return plan_hard(hard, self.num_real - hard, cap=cap)
        rare, held = (int((y.bincount() > 0).sum()) for y in (labels[self.is_hard], labels))
        return plan_epoch(
            hard, self.num_real - hard, share=rare / held, keep=keep, cap=cap, least=least
        )

    def epoch(
        self,
        client: Client,
        epoch: int,
        keep: float,
        cap: float,
        generator: torch.Generator,
        synthetic: Tensor,
        *,
        repeats: bool = False,
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch, see :mod:`fedlt.generators.curriculum`.

        Args:
            client: The client.
            epoch: Number of the epoch in the client's task.
            keep: Share of the other images to keep, if whole classes are hard.
            cap: Largest number of additional hard images, as a multiple of the real hard images.
            generator: CPU generator.
            synthetic: Rows of the synthetic images to add.
            repeats: Whether real hard images are repeated if single images are hard and
                ``synthetic`` is empty. (If whole classes are hard, they are always repeated.)
        """
        labels, (tail, others) = (
            self.labels,
            (part.nonzero().flatten() for part in (self.is_hard, ~self.is_hard)),
        )
        plan = self.plan(keep, cap, client.local.batch_size)
        if not (self.by_class or len(synthetic) or repeats):
            plan = replace(plan, filled=0)
        rows = draw_epoch(tail, others, synthetic, plan, generator)
        kinds = 2 * labels + self.is_hard  # (n,): class, and hard or not
        own = own_factors(rows, kinds, kinds.bincount()).to(self.data.labels.device)
        drawn = replace(self.data, indices=rows)
        for images, positions in batches_with_rows(client, epoch, drawn):
            extra, origin = {"own": own[positions]}, (self.data.images, positions)
            yield Batch(images, self.data.labels[positions], extra, origin)


def progress_epochs(
    client: Client, own: TailData, stages: int, shown: Callable[[Tensor], Iterator[Batch]]
) -> Iterator[Batch]:
    """Yield the batches of a real epoch, then of an epoch with the most useful stage (algorithm 2).

    The most useful stage is the one whose held-out images gained most from the real epoch.

    Args:
        client: The client, whose model is read before and after the first epoch.
        own: Images of the client.
        stages: Number of levels of the pool.
        shown: Function that makes an epoch's batches from the rows of synthetic images to add.
    """
    held_out = own.held_out(stages)
    stage = None
    if len(held_out):
        before = true_probability(client, own, held_out)
        yield from shown(own.none())
        stage = most_progress(before, true_probability(client, own, held_out))
    else:
        yield from shown(own.none())
    yield from shown(own.synthetic(stage, without=held_out.flatten()))


@torch.no_grad()
def true_probability(client: Client, own: TailData, rows: Tensor) -> Tensor:
    """Return the probabilities (V, stages) of the true class in the client's present model.

    Args:
        client: The client, whose model is read in evaluation mode.
        own: Images of the client.
        rows: Rows (V, stages) of images, V at least 1.
    """
    model, data = client.model, own.data
    found = []
    with evaluating(model):
        for chosen in rows.T.to(data.labels.device):
            logits = model(normalize(data.images[chosen], data.mean, data.std))
            probability = client.plugin.predict(logits).softmax(dim=-1)
            found.append(probability.gather(1, data.labels[chosen, None])[:, 0].cpu())
    return torch.stack(found, dim=1)


def added_images(
    material: Mapping[str, NDArray[Any]], hard: NDArray[np.int64], *, holds_out: bool
) -> int:
    """Return the number of images of a pool that the clients train on.

    Args:
        material: Arrays from :func:`use_pool`.
        hard: Rows of all clients' hard images.
        holds_out: Whether one image per level is held out for each source that has all levels.
    """
    used = np.isin(material[SOURCES], hard)
    added = int(used.sum())
    if holds_out:
        pairs = np.unique(
            np.stack([material[SOURCES][used], material[STAGES][used]]), axis=1
        )  # (2, sources and their levels)
        levels = len(material[LEVELS])
        _, counts = np.unique(pairs[0], return_counts=True)
        added -= int((counts == levels).sum()) * levels
    return added
