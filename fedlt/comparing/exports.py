"""The table of a comparison as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

from fedlt.comparing.cells import (
    MOMENTS,
    PRICES,
    SPREAD,
    accuracy_cell,
    columns,
    price_cells,
)
from fedlt.comparing.conditions import Results
from fedlt.comparing.stream_tables import stream_rows
from fedlt.comparing.verdicts import Verdict
from fedlt.evaluation.headline import headlines

Settings = Mapping[str, Results]  # setting -> its table; "" where there is no grid

SIM = r"{\sim}"
_FIGURE = re.compile(r"(~)?([+-]?[\d.]+)(?: ± ([\d.]+))?")
_BESIDE = (  # in the CSV only: the masked view, the references, and whom the figures are about
    "personal/accuracy_held", "personal/generic", "personal/generic_held", "personal/gain_held",
    "personal/majority_guess", "personal/hurt", "personal/gain_few_owners", "personal/gain_others",
    "personal/worst10", "personal/std", "personal/balanced", "personal/many", "personal/medium",
    "personal/few", "personal/many_clients", "personal/medium_clients", "personal/few_clients",
    "personal/steps", "personal/clients", "personal/excluded", "personal/participated",
    "personal/never", "personal/mass_lost", "train/coverage", "train/coverage_few",
    "generic/worst_class", "generic/nll", "generic/ece",
)  # fmt: skip
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


def _headings(which: str, results: Results) -> list[str]:
    if which == "all":
        return [f"{view} {moment}" for view in ("generic", "personal") for moment in MOMENTS]
    return [*columns(results), *PRICES]


def _rows(results: Results, which: str) -> list[list[str]]:
    """Return cells as text, a row a method: label, figures, prices; ``all``: the four moments."""
    rows = []
    for label, runs in results.items():
        if which == "all":
            both = headlines(runs[0]).values()
            cells = [accuracy_cell(runs, moment, metric) for metric in both for moment in MOMENTS]
        else:
            cells = [accuracy_cell(runs, which, metric) for metric in columns(results).values()]
            cells += price_cells(runs).values()
        rows.append([label, *cells])
    return rows


def _beside(results: Results, which: str) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the streams' table; no row where there are none."""
    rows = [] if which == "all" else stream_rows(results, which)
    cells = [
        [row.label, *(accuracy_cell(row.runs, which, metric) for metric in row.metrics.values())]
        for row in rows
    ]
    return ["generic, by stream", *(rows[0].metrics if rows else ())], cells


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
        headings = ["method", *_headings(which, results)]
        title = f"{caption(name, which, results)}{f'; {setting}' if setting else ''}"
        text += f"{title}\n\n{_pipes(headings, _rows(results, which))}\n"
        headings, rows = _beside(results, which)
        text += f"{_pipes(headings, rows)}\n" if rows else ""
    return text + "".join(f"* {note}\n" for note in notes)


def _pipes(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def metrics_markdown(title: str, results: Results, which: str, columns: Mapping[str, str]) -> str:
    """Return a Markdown table of any shares, in percent with intervals; columns by heading."""
    rows = [
        [label, *(accuracy_cell(runs, which, metric) for metric in columns.values())]
        for label, runs in results.items()
    ]
    return f"{title}: {SPREAD}\n\n{_pipes(['method', *columns], rows)}"


def metrics_csv(results: Results, which: str) -> str:
    """Return every metric that a run has, unrounded, one line a run and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "seed", "moment", "metric", "value"])
    for label, runs in results.items():
        for run in runs:
            figures = (run.get(which) or {}).items()
            writer.writerows([label, run["seed"], which, *pair] for pair in figures)
    return out.getvalue()


def latex(name: str, which: str, settings: Settings, notes: Sequence[str]) -> str:
    r"""Return the tables in LaTeX, for ``\usepackage{booktabs}``; arguments as of `markdown`."""
    text = "% \\usepackage{booktabs}\n"
    for setting, results in settings.items():
        head = ["method", *_headings(which, results)]
        title = f"{caption(name, which, results)}{f'; {setting}' if setting else ''}"
        text += f"% {title}\n{_tabular(head, _rows(results, which))}"
        headings, rows = _beside(results, which)
        text += f"\\par\\medskip\n{_tabular(headings, rows)}" if rows else ""
    if notes:
        text += "\\par\\smallskip{\\footnotesize\n"
        text += "".join(f"{_escape(note)}\\par\n" for note in notes) + "}\n"
    return text


def _tabular(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = f"\\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}\n\\toprule\n"
    text += " & ".join(map(_escape, headings)) + " \\\\\n\\midrule\n"
    for row in rows:
        text += " & ".join(map(_cell, row)) + " \\\\\n"
    return text + "\\bottomrule\n\\end{tabular}\n"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _cell(text: str) -> str:
    """Return a figure in math mode, anything else as text."""
    figure = _FIGURE.fullmatch(text)
    if figure is None:
        return _escape(text)
    mark, number, half = figure.groups(default="")
    spread = f" \\pm {half}" if half else ""
    return f"${mark and SIM}{number}{spread}$"


def csv_text(which: str, settings: Settings) -> str:
    """Return every run's figures, unrounded, one line a run (``all``: one a run and moment)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    prices = ("bytes_down", "bytes_up", "bytes_once", "peak_memory", "seconds")
    policy = ("prior.use", "prior.gamma", "prior.source")
    head = ["setting", "method", "seed", "moment", "generic_model", *policy, *prices]
    shown = [metric for results in settings.values() for metric in columns(results).values()]
    metrics = list(dict.fromkeys([*shown, *_BESIDE]))
    writer.writerow([*head, *metrics])
    for setting, results in settings.items():
        for label, runs in results.items():
            for run in runs:
                prior = run.get("prior") or {}
                used = [prior.get(name.rpartition(".")[2]) for name in policy]
                moved = [run.get(name) for name in prices]
                for moment in MOMENTS if which == "all" else (which,):
                    figures = run.get(moment) or {}
                    own = [figures.get(metric) for metric in metrics]
                    whose = [setting, label, run["seed"], moment, run.get("generic_model")]
                    writer.writerow([*whose, *used, *moved, *own])
    return out.getvalue()


def verdicts_csv(found: Sequence[Verdict]) -> str:
    """Return the verdicts, unrounded shares, one line a comparison."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["setting", "view", "method", "against", "verdict", "seeds", "difference", "half"]
    writer.writerow([*head, "p_holm", "effect", "clients_higher", "clients_lower", "metric"])
    for one in found:
        test = one.test
        figures = [test.seeds, test.difference.mean, test.difference.half, one.p, test.effect]
        whose = [one.setting, one.view, one.row, one.against, one.word]
        writer.writerow([*whose, *figures, *(one.clients or (None, None)), one.metric])
    return out.getvalue()
