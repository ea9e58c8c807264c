"""Picture of a report, with a table of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.comparing.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """Picture: a figure, its numbers, and a reading help."""

    slug: str  # file name without its ending
    title: str
    how: str  # one plain sentence or two
    alt: str  # alternative text for screen readers
    figure: Figure
    sheets: Sequence[Sheet]  # at least one
