"""Plain cross-entropy: the baseline of every local-training method."""

from __future__ import annotations

from dataclasses import dataclass

from fedlt.client import ClientPlugin, PluginTraits


@dataclass(frozen=True)
class CrossEntropy(ClientPlugin):
    """Cross-entropy, averaged over streams and batch: the contract's own defaults."""

    traits = PluginTraits(per_image=True)
