"""The section ``partition``: which client holds which training images."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StrictStr,
    model_serializer,
    model_validator,
)

from fedlt.config.loading import is_spec
from fedlt.config.ranges import Count, Positive, Whole
from fedlt.config.section import Section
from fedlt.errors import nearest

SCHEMES = (
    "dirichlet", "iid", "shards", "natural", "quantity", "local_tail", "specialist",
)  # fmt: skip
_OF_SCHEME = {  # a key that only one scheme reads
    "min_images": "natural",
    "merge": "natural",
    "local_imbalance_factor": "local_tail",
    "holders": "specialist",
}


class PartitionConfig(Section):
    """Partition of the training images among the clients."""

    scheme: StrictStr = "dirichlet"  # of SCHEMES, or file.py:function, or package.module:Class
    variant: Literal["default", "reference"] = "default"  # reference: the papers' own code
    dirichlet_alpha: Positive = 0.5  # concentration; small: few classes per client
    num_clients: Count = 10  # not for `natural`, where it follows from the data
    min_samples: Whole = 2  # images that every client has at least, where a scheme draws them
    shards_per_client: Count = 2  # scheme shards only
    file: StrictStr | None = None  # a saved partition.json to use instead of a drawn partition
    min_images: Count = 1  # natural: clients with fewer images are dropped, with their images
    merge: Count = 1  # natural: as many clients are put together into one
    local_imbalance_factor: Annotated[float, Field(strict=True, ge=1)] = 10.0  # local_tail
    holders: Count = 1  # specialist: clients that hold the rare classes
    options: dict[StrictStr, Any] = Field(default_factory=dict)  # of a function or a partitioner
    uncovered: Literal["refuse", "drop"] = "refuse"  # images that belong to no client

    @property
    def follows(self) -> bool:
        """True if the number of clients is known only with the data."""
        return self.file is not None or self.scheme == "natural" or is_spec(self.scheme)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.scheme not in SCHEMES and not is_spec(self.scheme):
            raise ValueError(f"scheme: unknown {self.scheme!r}{nearest(self.scheme, SCHEMES)}")
        for key, scheme in _OF_SCHEME.items():
            if self.scheme != scheme and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: is for scheme {scheme}, not {self.scheme}")
        if self.options and not is_spec(self.scheme):
            raise ValueError(
                f"options: are for scheme file.py:function or module:Class, not {self.scheme}"
            )
        if self.scheme == "natural" and "num_clients" in self.model_fields_set:
            raise ValueError(
                "num_clients: follows from the data with scheme natural; leave it out (min_images "
                "and merge make fewer clients)"
            )
        if self.scheme == "specialist" and self.holders > self.num_clients:
            raise ValueError(
                f"holders: {self.holders} is more than partition.num_clients: {self.num_clients}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``num_clients`` out where it follows from the data."""
        values: dict[str, Any] = handler(self)
        if self.scheme == "natural":
            del values["num_clients"]
        return values
