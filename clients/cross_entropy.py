"""Plain cross-entropy: the baseline of every local-training method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedlt.client import ClientPlugin


@dataclass(frozen=True)
class CrossEntropy(ClientPlugin):
    """Cross-entropy, averaged over streams and batch: the contract's own defaults."""

    per_image: ClassVar[bool] = True
