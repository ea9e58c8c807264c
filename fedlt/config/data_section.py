"""The section ``data``: the data set, its long tail and its split. Keys: docs/configuration.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictStr

from fedlt.config.section import Section


class DataConfig(Section):
    """Images to train and score on."""

    dataset: StrictStr = "digits"  # built-in name, or file.py:function, package.module:function
    root: StrictStr | None = None  # folder of downloaded data; None: the data set's default
    imbalance_factor: Annotated[float, Field(strict=True, ge=1)] = 1.0  # largest / smallest class
    profile: Literal["exponential", "step"] = "exponential"  # how class sizes fall off
    split: Literal["final", "tune"] = "final"  # tune: score on a held-out part of the pool
    class_order: Literal["natural", "shuffled"] = "natural"  # which classes become rare
    normalisation: Literal["own", "imagenet"] = "own"  # mean and deviation of the pool, or fixed
    options: dict[StrictStr, Any] = Field(default_factory=dict)  # the data set's own arguments
