"""The sections ``deployment`` and ``flower``: a run on a grid of Flower's (docs/deploy.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictStr

from fedlt.config.ranges import Count, Positive
from fedlt.config.section import Section


class DeploymentConfig(Section):
    """What a server asks of the nodes of Flower's grid, and what a failing node does."""

    average_personal: Annotated[bool, Field(strict=True)] = False  # nodes may send personal parts
    wait: Positive = 600.0  # seconds until a node is there for every client
    timeout: Positive = 600.0  # seconds until a client counts as lost
    min_replies: Count = 1  # answers without which the run stops
    on_error: Literal["lost", "stop"] = "lost"  # what a node's error does


class FlowerConfig(Section):
    """Parts of Flower in a run."""

    mods: list[StrictStr] = Field(default_factory=list)  # file.py:name, or module:name; outer first
