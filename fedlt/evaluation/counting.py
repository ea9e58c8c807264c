"""One evaluation pass: from cached features to the integer counts of :mod:`scores`.

    features (B, S, D) --head--> (B, S, C) --predict: fuse the streams--> logits (B, C) --> counts
                                    +--> predictions of each stream alone (S, B) --> counts

Logits are computed in fixed blocks of ``block_size`` images, since the last bits of a matrix
product depend on its shape. Workers that share a test set must therefore get shards that begin at
multiples of ``block_size``. The generic and the personal pass use the same blocks, so a personal
model equal to the global model has a gain of exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlt.data.arrays import BoolArray, IntArray
from fedlt.errors import FedltError
from fedlt.evaluation.scores import (
    CONFIDENCE_UNIT,
    NLL_UNIT,
    NUM_BINS,
    ClientHits,
    GenericScores,
)
from fedlt.update import HeadFunction

Predict = Callable[[Tensor], Tensor]  # logits (B, S, C) -> (B, C)

NLL_CEILING = 2.0**18  # nats; above it an image counts as not finite
HALF_LIMIT = 65504.0  # largest finite float16


@torch.no_grad()
def fused_logits(
    features: Tensor, head: HeadFunction, predict: Predict, *, block_size: int
) -> Tensor:
    """Return the (B, C) fused logits of all images, computed block by block.

    Args:
        features: (B, S, D).
        head: Maps (b, S, D) to (b, S, C).
        predict: Maps (b, S, C) to (b, C).
        block_size: Images per block.
    """
    return torch.cat([predict(head(block)) for block in torch.split(features, block_size)])


def check_names(heads: Sequence[str], streams: Sequence[str]) -> None:
    """Refuse a name that both a head and a stream of the global model have.

    Metrics of heads and of streams are reported under these names, and would collide.

    Raises:
        FedltError: If there is such a name.
    """
    for name in set(heads) & set(streams):
        raise FedltError(
            f"{name!r} is the name of a generic head and of a stream: both would be "
            f"generic/{name}/accuracy; rename one of them (streams: model.name_streams)"
        )


@torch.no_grad()
def score_generic(
    features: Tensor,
    labels: Tensor,
    heads: Mapping[str, HeadFunction],
    predict: Predict,
    *,
    block_size: int,
    streams: Sequence[str] = (),
    keep_logits: bool = False,
) -> GenericScores:
    """Return the scores of the global model's heads and streams on a shard of the test set.

    A stream alone predicts the class of its largest logit under the primary head.

    Args:
        features: (B, S, D) of the shard's images.
        labels: (B,) int64.
        heads: Heads by name, the primary head first.
        predict: Function that fuses the streams.
        block_size: Images per block; shards of one test set begin at multiples of this number.
        streams: Names of the S streams to score separately; (): no stream.
        keep_logits: Whether to return the fused logits in half precision, clamped to its range.

    Returns:
        Scores that add exactly over shards.

    Raises:
        FedltError: If a stream has the name of a head.
    """
    check_names(tuple(heads), streams)
    primary, *others = heads.values()
    first, predicted = _with_streams(features, primary, predict, block_size)
    logits = [first, *(fused_logits(features, h, predict, block_size=block_size) for h in others)]
    parts = [_count_blocks(one, labels, block_size) for one in logits]
    kept = None
    if keep_logits:
        kept = torch.stack(logits).clamp(-HALF_LIMIT, HALF_LIMIT).half().cpu().numpy()
    sums = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    return GenericScores(
        heads=tuple(heads),
        logits=kept,
        streams=tuple(streams),
        stream_confusion=_confusions(predicted[:, : len(streams)], labels, first.shape[1]),
        **sums,
    )


def _with_streams(
    features: Tensor, head: HeadFunction, predict: Predict, block_size: int
) -> tuple[Tensor, Tensor]:
    """Return the fused logits (B, C), and the classes (B, S) that the streams predict alone."""
    fused, alone = [], []
    for block in torch.split(features, block_size):
        logits = head(block)  # (b, S, C)
        fused.append(predict(logits))
        alone.append(logits.argmax(dim=-1))
    return torch.cat(fused), torch.cat(alone)


def _confusions(predicted: Tensor, labels: Tensor, classes: int) -> IntArray:
    """Return confusion matrices (S, C, C), from classes (B, S) that streams predict and labels."""
    streams = predicted.shape[1]
    rows = torch.arange(streams, device=labels.device) * classes + labels[:, None]  # (B, S)
    cells = (rows * classes + predicted).flatten()
    counts = torch.bincount(cells, minlength=streams * classes * classes)
    table: IntArray = counts.cpu().numpy().reshape(streams, classes, classes)
    return table


def _count_blocks(logits: Tensor, labels: Tensor, block_size: int) -> dict[str, IntArray]:
    """Return the counts of one head, added over the blocks."""
    pairs = zip(torch.split(logits, block_size), torch.split(labels, block_size), strict=True)
    blocks = [_count_generic(*pair) for pair in pairs]
    return {name: np.sum([block[name] for block in blocks], axis=0) for name in blocks[0]}


def _count_generic(logits: Tensor, labels: Tensor) -> dict[str, IntArray]:
    """Return the counts of one block, logits (b, C) against labels (b,), by GenericScores field."""
    classes = logits.shape[1]
    predicted = logits.argmax(dim=1)  # (B,)
    log_p = logits.double().log_softmax(dim=1)  # (B, C)
    nll = -log_p.gather(1, labels[:, None]).squeeze(1)  # (B,)
    finite = nll <= NLL_CEILING  # False for NaN too
    nll = torch.where(finite, nll, 0.0)
    confidence = log_p.gather(1, predicted[:, None]).squeeze(1).exp().nan_to_num(0.0)  # (B,)
    edges = torch.arange(1, NUM_BINS, dtype=torch.float64, device=logits.device) / NUM_BINS
    cells = labels * NUM_BINS + torch.bucketize(confidence, edges)  # bin i is (i/15, (i+1)/15]
    correct = (predicted == labels).long()

    def total(index: Tensor, values: Tensor, *shape: int) -> IntArray:
        sums = torch.zeros(shape, dtype=torch.int64, device=logits.device)
        sums.view(-1).index_add_(0, index, values)
        array: IntArray = sums.cpu().numpy()
        return array

    ones = torch.ones_like(labels)
    return {
        "confusion": total(labels * classes + predicted, ones, classes, classes),
        "nll": total(labels, (nll / NLL_UNIT).round().long(), classes),
        "nonfinite": total(labels, (~finite).long(), classes),
        "bin_counts": total(cells, ones, classes, NUM_BINS),
        "bin_confidence": total(
            cells, (confidence / CONFIDENCE_UNIT).round().long(), classes, NUM_BINS
        ),
        "bin_correct": total(cells, correct, classes, NUM_BINS),
    }


@torch.no_grad()
def count_hits(
    logits: Tensor,
    labels: Tensor,
    *,
    classes: BoolArray | None = None,
    drawn: IntArray | None = None,
) -> IntArray:
    """Return the number of correctly predicted images of each class.

    Args:
        logits: (B, C) fused logits.
        labels: (B,) int64.
        classes: (C,) mask of the classes that may be predicted, by logits of -inf for all others;
            None: all classes.
        drawn: (M,) rows of the images to count; None: all images.

    Returns:
        (C,) int64; zeros if the mask has no class.
    """
    size = logits.shape[1]
    if classes is not None:
        if not classes.any():
            return np.zeros(size, dtype=np.int64)
        barred = torch.tensor(~classes, device=logits.device)
        logits = logits.masked_fill(barred, float("-inf"))
    if drawn is not None:
        chosen = torch.tensor(drawn, device=logits.device)
        logits, labels = logits[chosen], labels[chosen]
    hit = labels[logits.argmax(dim=1) == labels]
    counts: IntArray = torch.bincount(hit, minlength=size).cpu().numpy()
    return counts


def client_hits(
    logits: Mapping[str, Tensor],
    labels: Tensor,
    *,
    class_counts: npt.ArrayLike,
    test_mask: BoolArray | None = None,
    drawn: IntArray | None = None,
) -> ClientHits:
    """Return one client's hits (correct predictions) from logits, with and without class masks.

    The same function counts the global model's hits on a client's view, for comparison:
    ``client_hits({"generic": logits}, ...)`` with the global model's logits, computed only once.

    Args:
        logits: Head name to (B, C) fused logits, the primary head first.
        labels: (B,) int64.
        class_counts: The client's class counts (C,); the held mask has the classes above 0.
        test_mask: (C,) from :meth:`LocalTest.test_mask`, for ``local_test: reference`` only.
        drawn: (M,) from :func:`draw_images`, for ``local_test: sampled`` only.

    Returns:
        The hits per head and class.
    """
    held = np.asarray(class_counts) > 0
    masks = [None, held] if test_mask is None else [None, held, test_mask]
    table = np.array(
        [
            [count_hits(one, labels, classes=mask, drawn=drawn) for mask in masks]
            for one in logits.values()
        ],
        dtype=np.int64,
    )  # (H, masks, C)
    return ClientHits(
        heads=tuple(logits),
        hits=table[:, 0],
        hits_held=table[:, 1],
        hits_test=None if test_mask is None else table[:, 2],
    )


@torch.no_grad()
def score_client(
    features: Tensor,
    labels: Tensor,
    heads: Mapping[str, HeadFunction],
    predict: Predict,
    *,
    class_counts: npt.ArrayLike,
    block_size: int,
    test_mask: BoolArray | None = None,
    drawn: IntArray | None = None,
) -> ClientHits:
    """Return the hits of one client's heads on the test set, see :func:`client_hits`.

    Args:
        features: (B, S, D) of all test images, from this client's model.
        labels: (B,) int64.
        heads: The client's heads by name, the primary head first.
        predict: Function that fuses the streams.
        class_counts: The client's class counts (C,).
        block_size: Images per block, as in :func:`score_generic`.
        test_mask: As in :func:`client_hits`.
        drawn: As in :func:`client_hits`.

    Returns:
        The hits per head and class.
    """
    logits = {
        name: fused_logits(features, head, predict, block_size=block_size)
        for name, head in heads.items()
    }
    return client_hits(logits, labels, class_counts=class_counts, test_mask=test_mask, drawn=drawn)
