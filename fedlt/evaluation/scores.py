"""Scores of an evaluation pass: integer counts that workers return and the driver adds.

All counts are int64. The two real-valued sums (negative log-likelihood, confidence) are fixed-point
integers, rounded for each image. So addition is exact, and totals do not depend on how the images
were divided between workers. Metrics are computed from the scores later, without test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import IntArray
from fedlt.errors import FedltError

NUM_BINS = 15  # equal-width bins (i/15, (i+1)/15] of the confidence
NLL_UNIT = 2.0**-24  # nats; one image above 2**18 nats counts as not finite
CONFIDENCE_UNIT = 2.0**-32


@dataclass(frozen=True)
class GenericScores:
    """Sums over test images for the global model's heads, by true class.

    ``a + b`` gives the exact scores of both sets of images; in kept logits, the images of ``b``
    follow those of ``a``.
    """

    heads: tuple[str, ...]  # H names; the first is the primary head
    confusion: IntArray  # (H, C, C) images by true class (row) and predicted class (column)
    nll: IntArray  # (H, C) sums of -log p(true class), in NLL_UNIT, over images where it is finite
    nonfinite: IntArray  # (H, C) images whose -log p(true class) is not finite
    bin_counts: IntArray  # (H, C, NUM_BINS) images by true class and bin of confidence
    bin_confidence: IntArray  # (H, C, NUM_BINS) sums of the confidence, in CONFIDENCE_UNIT
    bin_correct: IntArray  # (H, C, NUM_BINS) correctly predicted images
    streams: tuple[str, ...]  # S names; () if the model has a single stream
    stream_confusion: IntArray  # (S, C, C) confusion of each stream alone, under the primary head
    logits: npt.NDArray[np.float16] | None = None  # (H, B, C) fused logits, on request

    @classmethod
    def nothing(cls, num_classes: int) -> GenericScores:
        """Return empty scores, without a head, for a method that has no global model."""
        by_class = np.zeros((0, num_classes), dtype=np.int64)
        by_bin = np.zeros((0, num_classes, NUM_BINS), dtype=np.int64)
        confusion = np.zeros((0, num_classes, num_classes), dtype=np.int64)
        return cls((), confusion, by_class, by_class, by_bin, by_bin, by_bin, (), confusion)

    @property
    def test_counts(self) -> IntArray:
        """Number of test images per class (C,)."""
        counts: IntArray = self.confusion[0].sum(axis=1)
        return counts

    def __add__(self, other: GenericScores) -> GenericScores:
        """Return the scores of both sets of images together."""
        if self.heads != other.heads or (self.logits is None) != (other.logits is None):
            raise FedltError(f"scores of heads {self.heads} and {other.heads} cannot be added")
        if self.streams != other.streams:
            raise FedltError(f"scores of streams {self.streams} and {other.streams} do not add up")
        logits = None
        if self.logits is not None and other.logits is not None:
            logits = np.concatenate([self.logits, other.logits], axis=1)
        return GenericScores(
            heads=self.heads,
            confusion=self.confusion + other.confusion,
            nll=self.nll + other.nll,
            nonfinite=self.nonfinite + other.nonfinite,
            bin_counts=self.bin_counts + other.bin_counts,
            bin_confidence=self.bin_confidence + other.bin_confidence,
            bin_correct=self.bin_correct + other.bin_correct,
            streams=self.streams,
            stream_confusion=self.stream_confusion + other.stream_confusion,
            logits=logits,
        )


@dataclass(frozen=True)
class ClientHits:
    """Hits of one client's model: correctly predicted test images by head and true class."""

    heads: tuple[str, ...]  # H names; the first is the primary head
    hits: IntArray  # (H, C) without a mask
    hits_held: IntArray  # (H, C) if only classes that the client holds may be predicted
    hits_test: IntArray | None = None  # (H, C) if only local test classes may be: ``reference``

    @classmethod
    def nothing(cls, heads: tuple[str, ...], num_classes: int) -> ClientHits:
        """Return the hits on no image."""
        zeros = np.zeros((len(heads), num_classes), np.int64)
        return cls(heads, zeros, zeros)

    def __add__(self, other: ClientHits) -> ClientHits:
        """Return the hits on both sets of images together."""
        if self.heads != other.heads or (self.hits_test is None) != (other.hits_test is None):
            raise FedltError(f"hits of heads {self.heads} and {other.heads} cannot be added")
        test = None
        if self.hits_test is not None and other.hits_test is not None:
            test = self.hits_test + other.hits_test
        return ClientHits(
            self.heads, self.hits + other.hits, self.hits_held + other.hits_held, test
        )


@dataclass(frozen=True)
class PersonalScores:
    """Hits of many clients' models (see ClientHits), and of the global model on the same images."""

    heads: tuple[str, ...]  # H names; the first is the primary head
    cids: IntArray  # (E,) the evaluated clients
    hits: IntArray  # (E, H, C)
    hits_held: IntArray  # (E, H, C)
    generic_hits: IntArray  # (E, C) of the global model's primary head
    generic_hits_held: IntArray  # (E, C)
    hits_test: IntArray | None = None  # (E, H, C)
    generic_hits_test: IntArray | None = None  # (E, C)
    sampled: bool = False  # True: counted on each client's drawn images only
    own: bool = False  # True: counted on the test images that belong to each client only

    @property
    def counted(self) -> str:
        """The images that hits were counted on, in words."""
        if self.own:
            return "each client's own test images"
        return "drawn images" if self.sampled else "all test images"

    @classmethod
    def stack(
        cls,
        cids: Sequence[int],
        personal: Sequence[ClientHits | None],
        generic: Sequence[ClientHits],
        *,
        sampled: bool = False,
        own: bool = False,
    ) -> PersonalScores:
        """Return the clients' hits stacked in the order of ``cids``.

        Args:
            cids: (E,) the evaluated clients.
            personal: For each client, the hits of its own heads. None (a client never sampled so
                far): every head gets the hits of the global model's primary head.
            generic: For each client, the hits of the global model's primary head under the
                client's masks, on the client's images.
            sampled: Whether hits were counted on drawn images (``local_test: sampled``).
            own: Whether hits were counted on clients' own test images (``local_test: own``).

        Raises:
            FedltError: If the clients' heads differ.
        """
        names = {one.heads for one in personal if one is not None}
        if len(names) > 1:
            raise FedltError(f"personal heads differ between clients: {sorted(names)}")
        heads = names.pop() if names else generic[0].heads[:1]
        rows = [
            one if one is not None else _repeat(base, heads)
            for one, base in zip(personal, generic, strict=True)
        ]
        return cls(
            heads=heads,
            cids=np.asarray(cids, dtype=np.int64),
            hits=np.stack([row.hits for row in rows]),
            hits_held=np.stack([row.hits_held for row in rows]),
            generic_hits=np.stack([base.hits[0] for base in generic]),
            generic_hits_held=np.stack([base.hits_held[0] for base in generic]),
            hits_test=_stack_optional([row.hits_test for row in rows]),
            generic_hits_test=_stack_optional(
                [None if base.hits_test is None else base.hits_test[0] for base in generic]
            ),
            sampled=sampled,
            own=own,
        )


def _repeat(generic: ClientHits, heads: tuple[str, ...]) -> ClientHits:
    """Return hits in which every personal head has those of the global model's primary head."""
    size = len(heads)
    test = generic.hits_test
    return ClientHits(
        heads=heads,
        hits=np.repeat(generic.hits[:1], size, axis=0),
        hits_held=np.repeat(generic.hits_held[:1], size, axis=0),
        hits_test=None if test is None else np.repeat(test[:1], size, axis=0),
    )


def _stack_optional(rows: Sequence[IntArray | None]) -> IntArray | None:
    present = [row for row in rows if row is not None]
    return np.stack(present) if present and len(present) == len(rows) else None
