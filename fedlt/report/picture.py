"""A picture of a report, with the numbers that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.comparing.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure, its numbers, and how to read it."""

    slug: str  # file name without its ending
    title: str
    how: str  # one plain sentence or two
    alt: str  # alternative text for screen readers
    figure: Figure
    sheets: Sequence[Sheet]  # at least one
