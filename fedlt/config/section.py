"""What every section of a configuration file is made of: its base and its kinds of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# bool is an int to Python; strict types keep `true` out of numbers. The upper bounds are far above
# what is of use: beyond them a slip of the pen would fill the memory, or run for ever.
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]  # clients, rounds, images
Whole = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Epochs = Annotated[int, Field(strict=True, ge=0, le=10_000)]  # passes a round
Width = Annotated[int, Field(strict=True, ge=1, le=8192)]  # channels, or hidden units
Memory = Annotated[int, Field(strict=True, ge=0, le=1 << 30)]  # MiB
Seed = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NotNegative = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Name = Annotated[str, Field(strict=True, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """One section: unknown keys are refused, numbers are finite, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
