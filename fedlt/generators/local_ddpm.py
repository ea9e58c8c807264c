"""Generator ``local_ddpm``: each client trains its own diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedlt.generators.ddpm import Ddpm
from fedlt.generators.generator import ClientGroup, PoolRequest


@dataclass(frozen=True)
class LocalDdpm(Ddpm):
    """Diffusion model of one client: nothing leaves the client, but few images are memorised."""

    name: ClassVar[str] = "local_ddpm"

    def groups(self, request: PoolRequest) -> Sequence[ClientGroup]:
        """Return one group for each client that has sources."""
        pairs = zip(request.preparation.clients, request.sources, strict=True)
        return [ClientGroup((own,), sources) for own, sources in pairs if len(sources)]
