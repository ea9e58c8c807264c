"""Tables of a comparison as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlt.comparing.cells import MOMENTS, SPREAD, columns
from fedlt.comparing.conditions import Results
from fedlt.comparing.sheet import latex_text, to_csv, to_latex, to_markdown
from fedlt.comparing.stream_tables import streams_csv
from fedlt.comparing.table import figures_sheet, footnotes, privacy_sheets, stream_sheets
from fedlt.comparing.tuning import lines_above
from fedlt.comparing.verdicts import Verdict, describe, verdicts
from fedlt.errors import writing

Tables = Mapping[str, Results]  # setting -> finished rows; "" without a grid

_BESIDE = (  # in the CSV only: the masked view, the references, and the clients behind the figures
    "personal/accuracy_held", "personal/generic", "personal/generic_held", "personal/gain_held",
    "personal/majority_guess", "personal/hurt", "personal/gain_few_owners", "personal/gain_others",
    "personal/accuracy_few_owners", "personal/accuracy_others",
    "personal/worst10", "personal/std", "personal/balanced", "personal/many", "personal/medium",
    "personal/few", "personal/many_clients", "personal/medium_clients", "personal/few_clients",
    "personal/steps", "personal/clients", "personal/excluded", "personal/participated",
    "personal/never", "personal/mass_lost", "train/coverage", "train/coverage_few",
    "generic/worst_class", "generic/nll", "generic/ece",
)  # fmt: skip


def caption(name: str, which: str, results: Results) -> str:
    """Return the caption of a table: one line about its numbers."""
    runs = next(iter(results.values()))
    seeds = ", ".join(str(run["seed"]) for run in runs)
    split = runs[0]["split"]
    return f"{name}, {which}, split {split}, seeds {seeds}: {SPREAD}, in %"


def markdown(name: str, which: str, tables: Tables, notes: Sequence[str]) -> str:
    """Return the tables in Markdown, and the lines below them as a list.

    Args:
        name: The name of the comparison.
        which: A moment, or ``all`` for the four moments side by side.
        tables: The finished rows by setting.
        notes: Footnotes and verdicts.
    """
    text = ""
    for setting, results in tables.items():
        text += f"{_title(name, which, setting, results)}\n\n"
        text += "".join(f"{line}\n\n" for line in lines_above(results))
        beside = [*stream_sheets(results, which), *privacy_sheets(results, which)]
        for sheet in (figures_sheet(results, which), *beside):
            text += f"{to_markdown(sheet)}\n"
    return text + "".join(f"* {note}\n" for note in notes)


def latex(name: str, which: str, tables: Tables, notes: Sequence[str]) -> str:
    r"""Return the tables in LaTeX, for ``\usepackage{booktabs}``; arguments as in `markdown`."""
    text = "% \\usepackage{booktabs}\n"
    for setting, results in tables.items():
        text += f"% {_title(name, which, setting, results)}\n"
        text += "".join(f"{latex_text(line)}\\par\n" for line in lines_above(results))
        text += to_latex(figures_sheet(results, which))
        for sheet in [*stream_sheets(results, which), *privacy_sheets(results, which)]:
            text += f"\\par\\medskip\n{to_latex(sheet)}"
    if notes:
        text += "\\par\\smallskip{\\footnotesize\n"
        text += "".join(f"{latex_text(note)}\\par\n" for note in notes) + "}\n"
    return text


def _title(name: str, which: str, setting: str, results: Results) -> str:
    return f"{caption(name, which, results)}{f'; {setting}' if setting else ''}"


def metrics_csv(results: Results, which: str) -> str:
    """Return CSV text of all metrics of the runs, unrounded, one line per run and metric."""
    rows = [
        [label, run["seed"], which, *pair]
        for label, runs in results.items()
        for run in runs
        for pair in (run.get(which) or {}).items()
    ]
    return to_csv(["method", "seed", "moment", "metric", "value"], rows)


def csv_text(which: str, tables: Tables) -> str:
    """Return CSV text of the runs, unrounded, one line per run (``all``: per run and moment)."""
    prices = ("bytes_down", "bytes_up", "bytes_once", "peak_memory", "seconds")
    policy = ("prior.use", "prior.gamma", "prior.source")
    head = ["setting", "method", "seed", "moment", "generic_model", *policy, *prices]
    shown = [metric for results in tables.values() for metric in columns(results).values()]
    metrics = list(dict.fromkeys([*shown, *_BESIDE]))
    rows = []
    for setting, results in tables.items():
        for label, run in ((label, run) for label, runs in results.items() for run in runs):
            prior = run.get("prior") or {}
            known = [prior.get(name.rpartition(".")[2]) for name in policy]
            known += [run.get(name) for name in prices]
            for moment in MOMENTS if which == "all" else (which,):
                own = map((run.get(moment) or {}).get, metrics)
                place = [setting, label, run["seed"], moment, run.get("generic_model")]
                rows.append([*place, *known, *own])
    return to_csv([*head, *metrics], rows)


def verdicts_csv(found: Sequence[Verdict]) -> str:
    """Return CSV text of the verdicts, one line each; differences are unrounded fractions."""
    head = ["setting", "view", "method", "against", "verdict", "seeds", "difference", "half"]
    rows = []
    for one in found:
        test = one.test
        figures = [test.seeds, test.difference.mean, test.difference.half, one.p, test.effect]
        whose = [one.setting, one.view, one.row, one.against, one.word]
        rows.append([*whose, *figures, *(one.clients or (None, None)), one.metric])
    return to_csv([*head, "p_holm", "effect", "clients_higher", "clients_lower", "metric"], rows)


def conclusions(tables: Tables, which: str, against: str) -> tuple[list[Verdict], list[str]]:
    """Return the verdicts of a command, and the lines below its tables: footnotes and verdicts.

    Args:
        tables: The finished rows by setting.
        which: A moment, or ``all``; ``all`` and ``best_on_test`` get no verdicts.
        against: The label of the reference row.
    """
    tested = which not in ("all", "best_on_test")
    found = verdicts(tables, which, against) if tested else []
    notes = [*footnotes(tables, which), *describe(found)]
    if tested and not all(against in results for results in tables.values()):
        notes.append(f"no verdicts where {against} has not finished")
    return found, notes


def write_tables(
    folder: Path,
    name: str,
    which: str,
    tables: Tables,
    notes: Sequence[str],
    found: Sequence[Verdict],
) -> list[Path]:
    """Write ``<which>.md``, ``.tex`` and ``.csv`` to a folder, and return the written files.

    Models with streams add ``<which>_streams.csv``, verdicts add ``<which>_verdicts.csv``.

    Args:
        folder: The folder; a missing folder is made.
        name: The name of the comparison.
        which: A moment, or ``all``.
        tables: The finished rows by setting.
        notes: The lines below the tables, from :func:`conclusions`.
        found: The verdicts.

    Raises:
        FedltError: If a file cannot be written.
    """
    texts = {
        ".md": markdown(name, which, tables, notes),
        ".tex": latex(name, which, tables, notes),
        ".csv": csv_text(which, tables),
        "_streams.csv": streams_csv(which, tables),
        "_verdicts.csv": verdicts_csv(found) if found else "",
    }
    paths = {folder / f"{which}{end}": text for end, text in texts.items() if text}
    for path, text in paths.items():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return list(paths)
