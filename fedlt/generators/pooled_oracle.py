"""Generator ``pooled_oracle``: a diffusion model of all clients' images, for upper bounds only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedlt.generators.ddpm import Ddpm
from fedlt.generators.generator import ClientGroup, PoolRequest


@dataclass(frozen=True)
class PooledOracle(Ddpm):
    """Diffusion model trained on the pooled images of all clients, which no federation has."""

    name: ClassVar[str] = "pooled_oracle"
    reference: ClassVar[str] = "its generator saw the pooled images of all clients (a leak)"

    def groups(self, request: PoolRequest) -> Sequence[ClientGroup]:
        """Return one group of a single client that holds all images."""
        everything = np.sort(np.concatenate(request.preparation.clients))
        return [ClientGroup((everything,), request.every_source)]
