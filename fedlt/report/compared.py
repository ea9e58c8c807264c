"""A comparison as a Python object: its runs, its frame, its verdicts, its tables and report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fedlt.comparing.cells import MOMENTS
from fedlt.comparing.exports import caption, conclusions, latex, markdown
from fedlt.comparing.sheet import to_html
from fedlt.comparing.table import figures_sheet, stream_sheets, terminal_tables
from fedlt.comparing.tuning import lines_above
from fedlt.errors import FedltError, nearest
from fedlt.report.build import write_report
from fedlt.report.finished import MOMENT
from fedlt.report.frames import runs_frame, verdicts_frame
from fedlt.report.opened import Run

if TYPE_CHECKING:
    import pandas as pd

    from fedlt.comparing.verdicts import Verdict

_WIDTH = 140  # characters of a line of the table as text
_TESTED = ("final", "last_k", "selected")


@dataclass(frozen=True, repr=False)
class ComparisonTable:
    """Finished rows of a comparison, each with one run per seed, and their verdicts."""

    name: str  # of the comparison
    folder: Path  # that holds the runs
    results: Mapping[str, Sequence[Mapping[str, Any]]]  # row -> results, one per seed
    against: str  # the row that the others are tested against

    @property
    def runs(self) -> dict[str, list[Run]]:
        """Row -> its runs, one per seed."""
        return {
            label: [Run(Path(result["path"])) for result in results]
            for label, results in self.results.items()
        }

    def frame(self, which: str = MOMENT) -> pd.DataFrame:
        """Return a frame with one row per run, unrounded.

        Columns: ``method``, ``seed``, the metrics by name, ``seconds``, ``bytes_down``,
        ``bytes_up``.

        Args:
            which: The moment of the metrics: ``final``, ``last_k``, ``selected`` or
                ``best_on_test``.

        Raises:
            FedltError: If pandas is not installed, or there is no such moment.
        """
        _check(which, MOMENTS)
        return runs_frame(self.results, which)

    def verdicts(self, which: str = MOMENT) -> pd.DataFrame:
        """Return a frame with one row per method and view, tested against :attr:`against`.

        Columns: ``view``, ``method``, ``against``, ``metric``, ``verdict``, ``seeds``,
        ``difference``, ``half``, ``p_holm``, ``effect``, ``clients_higher``, ``clients_lower``.

        Args:
            which: ``final``, ``last_k`` or ``selected``; nothing is tested on ``best_on_test``.

        Raises:
            FedltError: If pandas is not installed, or there is no such moment.
        """
        _check(which, _TESTED)
        return verdicts_frame(self._conclusions(which)[0])

    def markdown(self, which: str = MOMENT) -> str:
        """Return the table in Markdown: means with 95 % intervals, in percent; verdicts below."""
        _check(which, (*MOMENTS, "all"))
        return markdown(self.name, which, {"": self.results}, self._conclusions(which)[1])

    def latex(self, which: str = MOMENT) -> str:
        r"""Return the table in LaTeX, for ``\usepackage{booktabs}``; verdicts below."""
        _check(which, (*MOMENTS, "all"))
        return latex(self.name, which, {"": self.results}, self._conclusions(which)[1])

    def report(self, path: str | Path) -> Path:
        """Write the report, one HTML page with curves, classes and clients, and return its path.

        Raises:
            FedltError: If a run cannot be read, or the page cannot be written.
        """
        runs = {label: [run.path for run in runs] for label, runs in self.runs.items()}
        found = self._conclusions(MOMENT)[0]
        return write_report(runs, Path(path).absolute(), found=found)[0]

    def _conclusions(self, which: str) -> tuple[list[Verdict], list[str]]:
        return conclusions({"": self.results}, which, self.against)

    def __repr__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=_WIDTH, color_system=None, force_jupyter=False)
        console.print(caption(self.name, MOMENT, self.results), markup=False, highlight=False)
        for line in lines_above(self.results):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(terminal_tables(self.results, MOMENT))
        for line in self._conclusions(MOMENT)[1]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return "\n".join(line.rstrip() for line in text.getvalue().rstrip().split("\n"))

    def _repr_html_(self) -> str:
        """Return the table and the verdicts, for a notebook."""
        sheets = [figures_sheet(self.results, MOMENT), *stream_sheets(self.results, MOMENT)]
        lines = [*self._conclusions(MOMENT)[1], str(self.folder)]
        below = "".join(f"<p>{escape(line)}</p>" for line in lines)
        title = escape(caption(self.name, MOMENT, self.results))
        above = "".join(f"<p>{escape(line)}</p>" for line in lines_above(self.results))
        return f"<p>{title}</p>{above}{''.join(map(to_html, sheets))}{below}"


def _check(which: str, known: Sequence[str]) -> None:
    if which not in known:
        raise FedltError(f"which: unknown {which!r}{nearest(which, known)}")
