"""Generator ``federated_ddpm``: all clients train one diffusion model by federated averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedlt.generators.ddpm import Ddpm


@dataclass(frozen=True)
class FederatedDdpm(Ddpm):
    """Diffusion model of all clients; weights and Adam's moments leave a client, images do not."""

    name: ClassVar[str] = "federated_ddpm"
