"""The sections ``deployment`` and ``flower``: a run on a grid of Flower's (docs/deploy.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictStr, model_validator

from fedlt.config.ranges import Count, Finite, Positive
from fedlt.config.section import Section


class PublicTestConfig(Section):
    """Public test set at the server: the test part of a data set."""

    dataset: StrictStr  # as data.dataset
    root: StrictStr | None = None  # as data.root
    options: dict[StrictStr, Any] = Field(default_factory=dict)  # as data.options


class DeploymentConfig(Section):
    """Rules of a run on Flower's grid: who holds the images, and what a failing node does."""

    data: Literal["shared", "nodes"] = "shared"  # nodes: each has images of its own
    image_shape: Annotated[list[Count], Field(min_length=3, max_length=3)] | None = None  # Ch, H, W
    mean: list[Finite] | None = None  # (Ch,), of pixel / 255; None: 0.5
    std: list[Positive] | None = None  # (Ch,), likewise; None: 0.5
    test: PublicTestConfig | None = None  # scores the generic model at the server; None: nothing
    answers: Literal["totals", "per_class"] = "totals"  # of hits on a node's own test images
    average_personal: Annotated[bool, Field(strict=True)] = False  # nodes may send personal parts
    wait: Positive = 600.0  # seconds until a node is there for every client
    timeout: Positive = 600.0  # seconds until a client counts as lost
    min_replies: Count = 1  # answers without which the run stops
    on_error: Literal["lost", "stop"] = "lost"  # what a node's error does

    @model_validator(mode="after")
    def _fits(self) -> Self:
        own = {name: getattr(self, name) for name in ("image_shape", "mean", "std", "test")}
        given = [name for name, value in own.items() if value is not None]
        if self.data == "shared" and given:
            raise ValueError(f"{given[0]}: is for data: nodes; shared data say it themselves")
        if self.data == "nodes" and self.image_shape is None:
            raise ValueError(
                "image_shape: is missing; with data: nodes the server has no image to see it on"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if self.image_shape and values is not None and len(values) != self.image_shape[0]:
                raise ValueError(
                    f"{name}: {values} is not one number for each of {self.image_shape[0]} channels"
                )
        return self


class FlowerConfig(Section):
    """Parts of Flower in a run."""

    mods: list[StrictStr] = Field(default_factory=list)  # file.py:name, or module:name; outer first
