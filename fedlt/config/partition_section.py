"""The section ``partition``: which client holds which training images."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictStr

from fedlt.config.ranges import Count, Positive, Whole
from fedlt.config.section import Section


class PartitionConfig(Section):
    """Partition of the training images among the clients."""

    scheme: Literal["dirichlet", "iid", "shards"] = "dirichlet"
    variant: Literal["default", "reference"] = "default"  # reference: the papers' own code
    dirichlet_alpha: Positive = 0.5  # concentration; small: few classes per client
    num_clients: Count = 10
    min_samples: Whole = 2  # images that every client has at least
    shards_per_client: Count = 2  # scheme shards only
    file: StrictStr | None = None  # a saved partition.json to use instead of a drawn partition
