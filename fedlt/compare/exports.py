"""The table of a comparison as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from fedlt.compare.conditions import Results
from fedlt.compare.figures import (
    COLUMNS,
    MOMENTS,
    PRICES,
    SPREAD,
    accuracy_cell,
    price_cells,
)
from fedlt.compare.verdicts import Verdict

__all__ = ["caption", "csv_text", "latex", "markdown", "verdicts_csv"]

Settings = Mapping[str, Results]  # setting -> its table; "" where there is no grid

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "<": r"$<$",
    ">": r"$>$",
}


def caption(name: str, which: str, results: Results) -> str:
    """Return one line: what the numbers of a table are."""
    runs = next(iter(results.values()))
    seeds = ", ".join(str(run["seed"]) for run in runs)
    split = runs[0]["split"]
    return f"{name}, {which}, split {split}, seeds {seeds}: {SPREAD}, in %"


def _headings(which: str) -> list[str]:
    if which == "all":
        return [f"{view} {moment}" for view in ("generic", "personal") for moment in MOMENTS]
    return [*COLUMNS, *PRICES]


def _rows(results: Results, which: str) -> list[list[str]]:
    """Return cells as text, a row a method: label, figures, prices; ``all``: the four moments."""
    rows = []
    for label, runs in results.items():
        if which == "all":
            views = ("generic/accuracy", "personal/accuracy")
            cells = [accuracy_cell(runs, moment, view) for view in views for moment in MOMENTS]
        else:
            cells = [accuracy_cell(runs, which, metric) for metric in COLUMNS.values()]
            cells += price_cells(runs).values()
        rows.append([label, *cells])
    return rows


def markdown(name: str, which: str, settings: Settings, notes: Sequence[str]) -> str:
    """Return the tables in Markdown, and the lines below them as a list.

    Args:
        name: Of the comparison.
        which: A moment, or ``all``: the four side by side.
        settings: The tables.
        notes: Footnotes and verdicts.
    """
    text = ""
    for setting, results in settings.items():
        headings = ["method", *_headings(which)]
        lines = [headings, ["---"] * len(headings), *_rows(results, which)]
        title = f"{caption(name, which, results)}{f'; {setting}' if setting else ''}"
        text += f"{title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
    return text + "".join(f"* {note}\n" for note in notes)


def latex(name: str, which: str, settings: Settings, notes: Sequence[str]) -> str:
    r"""Return the tables in LaTeX, for ``\usepackage{booktabs}``; arguments as of `markdown`."""
    text = "% \\usepackage{booktabs}\n"
    for setting, results in settings.items():
        headings = ["method", *_headings(which)]
        title = f"{caption(name, which, results)}{f'; {setting}' if setting else ''}"
        text += f"% {title}\n\\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}\n\\toprule\n"
        text += " & ".join(map(_escape, headings)) + " \\\\\n\\midrule\n"
        for row in _rows(results, which):
            text += " & ".join(map(_escape, row)) + " \\\\\n"
        text += "\\bottomrule\n\\end{tabular}\n"
    if notes:
        text += "\\par\\smallskip{\\footnotesize\n"
        text += "".join(f"{_escape(note)}\\par\n" for note in notes) + "}\n"
    return text


def _escape(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return escaped.replace(" ± ", " $\\pm$ ")


def csv_text(which: str, settings: Settings) -> str:
    """Return every run's figures, unrounded, one line a run (``all``: one a run and moment)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    prices = ("bytes_down", "bytes_up", "bytes_once", "seconds")
    policy = ("prior.use", "prior.gamma", "prior.source")
    head = ["setting", "method", "seed", "moment", "generic_model", *policy, *prices]
    writer.writerow([*head, *COLUMNS.values()])
    for setting, results in settings.items():
        for label, runs in results.items():
            for run in runs:
                prior = run.get("prior") or {}
                used = [prior.get(name.rpartition(".")[2]) for name in policy]
                moved = [run.get(name) for name in prices]
                for moment in MOMENTS if which == "all" else (which,):
                    figures = run.get(moment) or {}
                    own = [figures.get(metric) for metric in COLUMNS.values()]
                    whose = [setting, label, run["seed"], moment, run.get("generic_model")]
                    writer.writerow([*whose, *used, *moved, *own])
    return out.getvalue()


def verdicts_csv(found: Sequence[Verdict]) -> str:
    """Return the verdicts, unrounded shares, one line a comparison."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["setting", "view", "method", "against", "verdict", "seeds", "difference", "half"]
    writer.writerow([*head, "p_holm", "effect", "clients_higher", "clients_lower"])
    for one in found:
        test = one.test
        figures = [test.seeds, test.difference.mean, test.difference.half, one.p, test.effect]
        whose = [one.setting, one.view, one.row, one.against, one.word]
        writer.writerow([*whose, *figures, *(one.clients or (None, None))])
    return out.getvalue()
