"""Tables of a leaderboard: results and verdicts, mean ranks, searches; and its notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlt.comparing.cells import AVERAGE, SPREAD, accuracy_cell, is_average, values
from fedlt.comparing.conditions import Results
from fedlt.comparing.exports import write_tables
from fedlt.comparing.grid import row_folder
from fedlt.comparing.leaderboard import Entry, search_lines, version_lines
from fedlt.comparing.ranking import Ranking, rankings
from fedlt.comparing.search import TRIED, described, tried
from fedlt.comparing.sheet import DASH, Cell, Sheet, number, to_csv, to_markdown
from fedlt.comparing.statistics import LEVEL, interval
from fedlt.comparing.table import footnotes
from fedlt.comparing.verdicts import MIN_SEEDS, Verdict, describe, verdicts
from fedlt.errors import writing
from fedlt.evaluation.headline import headlines

_HEAD = (
    "data_set", "method", "column", "metric", "moment", "seeds", "generic_model", "mean", "half",
    "verdict", "difference", "p_holm",
)  # fmt: skip


@dataclass(frozen=True)
class Leaderboard:
    """Leaderboard: data sets with verdicts and ranks at one moment, against one row."""

    entries: Sequence[Entry]
    which: str
    against: str
    verdicts: Mapping[str, Sequence[Verdict]]  # by name of the data set
    rankings: Sequence[Ranking]

    @property
    def tables(self) -> dict[str, Results]:
        """The results by name of the data set."""
        return {entry.name: entry.results for entry in self.entries}

    def labels(self) -> list[str]:
        """Return all rows: ranked ones by mean rank in the first view, then the others."""
        ranked = [label for one in self.rankings for label in one.means]
        return list(dict.fromkeys([*ranked, *(row for t in self.tables.values() for row in t)]))


def make_leaderboard(entries: Sequence[Entry], which: str, against: str) -> Leaderboard:
    """Return a leaderboard; Holm's correction runs over rows and views of each data set alone.

    Args:
        entries: The data sets.
        which: ``final``, ``last_k`` or ``selected``.
        against: The reference row.
    """
    tables = {entry.name: entry.results for entry in entries}
    found = {name: verdicts({"": results}, which, against) for name, results in tables.items()}
    return Leaderboard(entries, which, against, found, rankings(tables, which))


def results_sheet(board: Leaderboard, *names: str) -> Sheet:
    """Return the table of results: per data set the headlines, few-classes, and the verdict.

    Args:
        board: The leaderboard.
        names: The data sets; all by default.
    """
    tables = {name: board.tables[name] for name in names} or board.tables
    columns = ["method"]
    for name in tables:
        columns += [f"{name}: generic", "few", "personal", "verdict"]
    rows: list[list[object]] = []
    for label in board.labels():
        cells: list[object] = [label]
        for name, results in tables.items():
            runs = results.get(label)
            cells += [
                accuracy_cell(runs, board.which, metric) if runs else Cell(DASH)
                for metric in _metrics(results).values()
            ]
            cells.append(_verdict_words(board, name, label))
        rows.append(cells)
    return Sheet("results", columns, rows)


def ranks_sheet(board: Leaderboard) -> Sheet:
    """Return the table of mean ranks, one column per view."""
    rows = [[label, *(_rank(one, label) for one in board.rankings)] for label in board.labels()]
    return Sheet("mean rank", ["mean rank", *(one.view for one in board.rankings)], rows)


def _rank(one: Ranking, label: str) -> Cell:
    cell = number(one.means.get(label), ".2f")
    return cell._replace(text=f"{AVERAGE}{cell.text}") if label in one.averages else cell


def chosen_sheet(board: Leaderboard) -> Sheet | None:
    """Return the table of the values that searches chose; None if no row was searched."""
    return _searched_sheet(board, "chosen", _chosen)


def tried_sheet(board: Leaderboard) -> Sheet | None:
    """Return the table of all trials with their scores; None if no row was searched."""
    return _searched_sheet(board, TRIED, trials_cell)


def _searched_sheet(
    board: Leaderboard, title: str, words: Callable[[Mapping[str, Any]], str]
) -> Sheet | None:
    if not any(entry.tuned for entry in board.entries):
        return None
    rows = []
    for label in board.labels():
        found = (entry.tuned.get(label) for entry in board.entries)
        rows.append([label, *(DASH if one is None else words(one) for one in found)])
    return Sheet(title, [title, *(entry.name for entry in board.entries)], rows)


def _chosen(entry: Mapping[str, Any]) -> str:
    return described(tuple(entry["values"].items()))


def trials_cell(entry: Mapping[str, Any]) -> str:
    """Return the trials of an entry of tuned.json, the best in bold.

    Files of before the key ``tried`` know the best trial only.
    """
    trials = entry.get("tried", [[entry["values"], entry["score"]]])
    return tried([(tuple(values.items()), score) for values, score in trials])


def notes(board: Leaderboard) -> list[str]:
    """Return the lines below the tables: moment, verdicts, budgets, ranks, marks and warnings."""
    lines = []
    for entry in board.entries:
        runs = next(iter(entry.results.values()))
        seeds = ", ".join(str(run["seed"]) for run in runs)
        told = f"{board.which} of {runs[0]['rounds']} rounds, split {runs[0]['split']}"
        lines.append(f"{entry.name}: {told}, seeds {seeds}: {SPREAD}, in %")
        lines += [_verdict_line(board, entry), *search_lines(entry), *version_lines(entry)]
    lines += [_rank_line(board, one) for one in board.rankings]
    return lines + footnotes(board.tables, board.which)


def _metrics(results: Results) -> dict[str, str]:
    """Return the columns of a data set: heading -> metric."""
    first = headlines(next(iter(results.values()))[0])
    return {"generic": first["generic"], "few": "generic/few", "personal": first["personal"]}


def _verdict_words(board: Leaderboard, name: str, label: str) -> str:
    """Return a row's verdict in both views, such as ``generic better, personal worse``."""
    if label == board.against:
        return "reference"
    found = {one.view: one.word for one in board.verdicts[name] if one.row == label}
    if not found:
        return DASH
    told = {view: word for view, word in found.items() if word in ("better", "worse")}
    if told:
        return ", ".join(f"{view} {word}" for view, word in told.items())
    return next(iter(found.values()))


def _verdict_line(board: Leaderboard, entry: Entry) -> str:
    if board.against not in entry.results:
        return f"{entry.name}: no verdicts, since it has no row {board.against}"
    found = board.verdicts[entry.name]
    tested = sum(one.p is not None for one in found)
    seeds = len(entry.results[board.against])
    head = f"{entry.name}: verdicts against {board.against}"
    if not tested:
        return f"{head}: undecided, a verdict needs {MIN_SEEDS} seeds, here {seeds}"
    return (
        f"{head}: t test paired over {seeds} seeds, Holm's correction over {tested} comparisons "
        f"(rows x views), level {LEVEL:.0%}; a view that is not named is not different"
    )


def _rank_line(board: Leaderboard, one: Ranking) -> str:
    limit = "" if one.difference is None else f"; critical difference {one.difference:.2f}"
    left = [label for label in board.labels() if label not in one.means]
    out = f"; not ranked: {', '.join(left)}" if left else ""
    return (
        f"mean rank, {one.view}: {len(one.means)} rows in {one.blocks} blocks (data set x seed), 1 "
        f"is best{limit} (Nemenyi, {LEVEL:.0%}): a description, no verdict{out}"
    )


def markdown(board: Leaderboard, figure: str) -> str:
    """Return the leaderboard in Markdown: results, ranks with the figure, searches, notes.

    Args:
        board: The leaderboard.
        figure: The path of the figure, as the text names it; "": no figure.
    """
    searches = tried_sheet(board)
    parts = [to_markdown(results_sheet(board))]
    if board.rankings:
        parts.append(to_markdown(ranks_sheet(board)))
        parts += [f"![{rank_words(board)}]({figure})\n"] if figure else []
    parts += [] if searches is None else [to_markdown(searches)]
    parts.append("".join(f"* {line}\n" for line in notes(board)))
    return "\n".join(parts)


def rank_words(board: Leaderboard) -> str:
    """Return the alternative text of the figure: the three best mean ranks of each view."""
    told = []
    for one in board.rankings:
        best = [f"{label} {mean:.2f}" for label, mean in one.means.items()][:3]
        told.append(f"{one.view}: {', '.join(best)}")
    return f"Mean ranks of {len(board.labels())} methods; the best are, {'; '.join(told)}."


def results_rows(board: Leaderboard) -> list[dict[str, Any]]:
    """Return the results, unrounded: a dictionary per data set, method and column."""
    rows = []
    for name, results in board.tables.items():
        judged = {(one.row, one.metric): one for one in board.verdicts[name]}
        for label, runs in results.items():
            for column, metric in _metrics(results).items():
                found = values(runs, board.which, metric)
                one = interval(found) if found else None
                verdict = judged.get((label, metric))
                figures = [None, None] if one is None else [one.mean, one.half]
                model = "average" if column != "personal" and is_average(runs) else None
                place = (name, label, column, metric, board.which, len(runs), model)
                judged_as: tuple[object, ...] = (None, None, None)
                if verdict is not None:
                    judged_as = (verdict.word, verdict.test.difference.mean, verdict.p)
                rows.append(dict(zip(_HEAD, (*place, *figures, *judged_as), strict=True)))
    return rows


def results_csv(board: Leaderboard) -> str:
    """Return CSV text of :func:`results_rows`."""
    return to_csv(_HEAD, (row.values() for row in results_rows(board)))


def ranks_csv(board: Leaderboard) -> str:
    """Return CSV text of the mean ranks, one line per view and method."""
    rows = [
        [one.view, label, mean, len(one.means), one.blocks, one.difference]
        for one in board.rankings
        for label, mean in one.means.items()
    ]
    head = ["view", "method", "mean_rank", "methods", "blocks", "critical_difference"]
    return to_csv(head, rows)


def write_leaderboard(board: Leaderboard, folder: Path, figure: str) -> list[Path]:
    """Write a leaderboard, and the tables of each data set as ``fedlt compare`` writes them.

    Args:
        board: The leaderboard.
        folder: Gets ``leaderboard.md``, ``leaderboard.csv``, ``ranks.csv``, and a folder per data
            set.
        figure: As of :func:`markdown`.

    Raises:
        FedltError: If a file cannot be written.
    """
    texts = {
        "leaderboard.md": markdown(board, figure),
        "leaderboard.csv": results_csv(board),
        "ranks.csv": ranks_csv(board),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    paths = [folder / name for name in texts]
    for name, results in board.tables.items():
        own, found = {"": results}, board.verdicts[name]
        below = [*footnotes(own, board.which), *describe(found)]
        paths += write_tables(folder / row_folder(name), name, board.which, own, below, found)
    return paths
