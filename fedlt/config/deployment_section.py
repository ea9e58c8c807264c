"""The sections ``deployment`` and ``flower``: a federation of Flower's nodes (docs/deploy.md)."""

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
    """Federation of nodes: who holds the images, and what happens when a node fails."""

    data: Literal["shared", "nodes"] = "shared"  # nodes: each has images of its own
    classes: Annotated[list[StrictStr], Field(min_length=2)] | None = None  # nodes: their names
    image_shape: Annotated[list[Count], Field(min_length=3, max_length=3)] | None = None  # Ch, H, W
    mean: list[Finite] | None = None  # (Ch,), of pixel / 255; None: the test set's, or 0.5
    std: list[Positive] | None = None  # likewise
    test: PublicTestConfig | None = None  # nodes: scores the generic model; None: nobody does
    answers: Literal["totals", "per_class"] = "totals"  # what a node says of its own test images
    average_personal: Annotated[bool, Field(strict=True)] = False  # nodes may send personal parts
    wait: Positive = 600.0  # seconds until a node is there for every client
    timeout: Positive = 600.0  # seconds until a client counts as lost
    min_replies: Count = 1  # answers without which the run stops
    on_error: Literal["lost", "stop"] = "lost"  # what a node's error does

    @model_validator(mode="after")
    def _fits(self) -> Self:
        own = {name: getattr(self, name) for name in ("classes", "image_shape", "mean", "std")}
        own["test"] = self.test
        given = [name for name, value in own.items() if value is not None]
        if self.data == "shared" and given:
            raise ValueError(f"{given[0]}: is for data: nodes; shared data say it themselves")
        if self.data == "nodes" and self.test is None:
            for name in ("classes", "image_shape"):
                if own[name] is None:
                    raise ValueError(
                        f"{name} is missing: with data: nodes the server has no images to see it "
                        "on; give it, or a public test set as test"
                    )
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: {self.classes} names a class twice")
        channels = None if self.image_shape is None else self.image_shape[0]
        for name in ("mean", "std"):
            if channels is not None and own[name] is not None and len(own[name]) != channels:
                raise ValueError(f"{name}: {own[name]} is not one number for each of {channels}")
        return self


class FlowerConfig(Section):
    """Parts of Flower in a run."""

    mods: list[StrictStr] = Field(default_factory=list)  # file.py:name, or module:name; outer first
