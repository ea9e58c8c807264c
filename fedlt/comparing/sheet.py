"""Sheet: a table as a value, written for terminal, Markdown, LaTeX, CSV and HTML.

A number in a table is a :class:`Cell`: the shown text, and the measured value.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

from fedlt.comparing.statistics import interval

DASH = "-"

_SIM = r"{\sim}"
_FIGURE = re.compile(r"(~)?([+-]?[\d.]+)(?: ± (>?[\d.]+))?")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "<": r"$<$",
    ">": r"$>$",
}


class Cell(NamedTuple):
    """Cell: a number in a table."""

    text: str  # as shown
    value: float | None = None  # as measured; None: not measured, or several numbers in the text


@dataclass(frozen=True)
class Sheet:
    """Sheet: a table whose cells are words (str) or numbers (Cell); for CSV also plain values."""

    title: str
    columns: Sequence[str]  # the headings
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()  # lines below the table
    marks: Collection[int] = ()  # positions of the rows that stand out: bold in the terminal

    def part(self, title: str, columns: Mapping[str, str]) -> Sheet:
        """Return a sheet of the first column, headed ``title``, and the columns ``columns``.

        Args:
            title: The new heading of the first column.
            columns: Heading of a column here -> its heading there.
        """
        places = [0, *(self.columns.index(name) for name in columns)]
        rows = [[row[place] for place in places] for row in self.rows]
        return Sheet(title, [title, *columns.values()], rows)


def percent(value: float | None, *, signed: bool = False) -> str:
    """Return a share as a percentage with one decimal; None and NaN are a dash."""
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:{'+' if signed else ''}z.1f}"


def half_width(half: float) -> str:
    """Return half the width of an interval of shares, as text in points, at most ">100"."""
    return f"{100 * half:z.1f}" if half < 1 else ">100"


def share(value: float | None, *, signed: bool = False) -> Cell:
    """Return the cell of a share in per cent with one decimal."""
    known = None if value is None or math.isnan(value) else float(value)
    return Cell(percent(known, signed=signed), known)


def number(value: float | None, form: str = ",.0f") -> Cell:
    """Return the cell of a number in a format."""
    return Cell(DASH) if value is None else Cell(f"{value:{form}}", float(value))


def spread(values: Sequence[float], *, signed: bool = False, mark: str = "") -> Cell:
    """Return the cell of mean and 95 % interval of shares over seeds in per cent, after a mark."""
    if not values or any(map(math.isnan, values)):
        return Cell(DASH)
    found = interval(values)
    text = f"{mark}{percent(found.mean, signed=signed)}"
    half = "" if found.half is None else f" ± {half_width(found.half)}"
    return Cell(f"{text}{half}", found.mean)


def between(values: Sequence[float]) -> Cell:
    """Return the cell of the range of shares over seeds, in per cent."""
    return Cell(f"{percent(min(values))} to {percent(max(values))}" if len(values) > 1 else DASH)


def text_of(cell: object) -> str:
    """Return the shown text of a cell."""
    return cell.text if isinstance(cell, Cell) else str(cell)


def _is_numeric(sheet: Sheet, column: int) -> bool:
    """Return True if a column holds numbers only."""
    return all(isinstance(row[column], Cell) for row in sheet.rows)


def to_terminal(sheet: Sheet, *, first: int | None = 8, least: int | None = None) -> Table:
    """Return a table for the terminal: words left-aligned, numbers right-aligned and unbroken.

    Args:
        sheet: The table; its title and notes are not shown.
        first: Least width of the first column, in characters; None: as wide as its text.
        least: Least width of the other columns.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(sheet.columns):
        is_number = place > 0 and _is_numeric(sheet, place)
        width = least if place else first
        side: JustifyMethod = "right" if is_number else "left"
        table.add_column(heading, justify=side, min_width=width, no_wrap=is_number)
    for place, row in enumerate(sheet.rows):
        style = "bold" if place in sheet.marks else None
        table.add_row(*(text_of(cell).replace(" ± ", "±") for cell in row), style=style)
    return table


def to_markdown(sheet: Sheet) -> str:
    """Return the columns and rows as a Markdown table."""
    lines = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows]
    return "".join(f"| {' | '.join(map(text_of, line))} |\n" for line in lines)


def to_latex(sheet: Sheet) -> str:
    r"""Return the columns and rows as a LaTeX table, for ``\usepackage{booktabs}``."""
    text = f"\\begin{{tabular}}{{l{'r' * (len(sheet.columns) - 1)}}}\n\\toprule\n"
    text += " & ".join(map(latex_text, sheet.columns)) + " \\\\\n\\midrule\n"
    for row in sheet.rows:
        text += " & ".join(map(_latex_cell, row)) + " \\\\\n"
    return text + "\\bottomrule\n\\end{tabular}\n"


def latex_text(text: str) -> str:
    """Return a text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_cell(cell: object) -> str:
    """Return a number in math mode, other cells as text."""
    figure = _FIGURE.fullmatch(text_of(cell))
    if figure is None:
        return latex_text(text_of(cell))
    mark, number, half = figure.groups(default="")
    spread = f" \\pm {half}" if half else ""
    return f"${mark and _SIM}{number}{spread}$"


def to_csv(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return lines of comma-separated values, numbers unrounded; None is empty."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    return out.getvalue()


_WORDS = ' class="text"'


def to_html(sheet: Sheet) -> str:
    """Return the table in HTML, with title and notes.

    A number keeps its measured value: ``<data value="0.94">94.0</data>``.
    """
    heads = "".join(
        f'<th scope="col"{"" if _is_numeric(sheet, place) else _WORDS}>{escape(heading)}</th>'
        for place, heading in enumerate(sheet.columns)
    )
    rows = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in sheet.rows)
    note = f'<p class="note">{escape(" ".join(sheet.notes))}</p>' if sheet.notes else ""
    return (
        f'<div class="scroll"><table><caption>{escape(sheet.title)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}"
    )


def _html_cell(cell: object) -> str:
    if not isinstance(cell, Cell):
        return f"<td{_WORDS}>{escape(str(cell))}</td>"
    if cell.value is None:
        return f'<td class="number">{escape(cell.text)}</td>'
    return f'<td class="number"><data value="{cell.value!r}">{escape(cell.text)}</data></td>'
