"""What a report consists of: tables whose cells keep their numbers, and pictures beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fedlt.comparing.statistics import interval
from fedlt.comparing.terminal import DASH, half_width, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Cell(NamedTuple):
    """A number in a table: as it is shown, and as it was measured."""

    text: str
    value: float | None


def text_of(cell: Cell | str) -> str:
    """Return what a cell shows."""
    return cell if isinstance(cell, str) else cell.text


@dataclass(frozen=True)
class Sheet:
    """A table."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    note: str = ""  # a line under it


@dataclass(frozen=True)
class Picture:
    """A figure, its numbers, and how to read it."""

    slug: str  # file name without its ending
    title: str
    how: str  # one plain sentence or two
    alt: str  # what somebody is told who does not see it
    figure: Figure
    sheets: Mapping[str, Sheet]  # heading -> table; at least one
    width: str = "100%"  # of the page


def share(value: float | None, *, signed: bool = False) -> Cell:
    """Return a share in per cent with one decimal."""
    known = None if value is None or math.isnan(value) else float(value)
    return Cell(percent(known, signed=signed), known)


def number(value: float | None, form: str = ",.0f") -> Cell:
    """Return a number."""
    return Cell(DASH, None) if value is None else Cell(f"{value:{form}}", float(value))


def spread(values: Sequence[float], *, signed: bool = False) -> Cell:
    """Return mean and 95 % interval of shares over seeds, in per cent."""
    if not values or any(map(math.isnan, values)):
        return Cell(DASH, None)
    found = interval(values)
    text = percent(found.mean, signed=signed)
    if found.half is None:
        return Cell(text, found.mean)
    return Cell(f"{text} ± {half_width(found.half)}", found.mean)


def between(values: Sequence[float]) -> Cell:
    """Return the range of shares over seeds, in per cent."""
    if len(values) < 2:
        return Cell(DASH, None)
    return Cell(f"{percent(min(values))} to {percent(max(values))}", None)
