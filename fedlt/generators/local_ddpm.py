"""Generator ``local_ddpm``: each client learns a diffusion model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedlt.generators.ddpm import Ddpm
from fedlt.generators.generator import ClientGroup, PoolRequest


@dataclass(frozen=True)
class LocalDdpm(Ddpm):
    """Each client alone: nothing leaves it, and a client with few images memorises them."""

    name: ClassVar[str] = "local_ddpm"

    def groups(self, request: PoolRequest) -> Sequence[ClientGroup]:
        """Return a group for each client that has sources."""
        pairs = zip(request.preparation.clients, request.sources, strict=True)
        return [ClientGroup((own,), sources) for own, sources in pairs if len(sources)]
