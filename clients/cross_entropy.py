"""Plain cross-entropy: the baseline of every local-training method."""

from __future__ import annotations

from dataclasses import dataclass

from fedlt.client import ClientPlugin, PluginTraits


@dataclass(frozen=True)
class CrossEntropy(ClientPlugin):
    """Plain cross-entropy, averaged over streams and batch: the default client plugin."""

    traits = PluginTraits(per_image=True)
