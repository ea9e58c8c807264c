"""Tables of the streams of a comparison's models beside the fused prediction; not in verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlt.comparing.cells import MOMENTS
from fedlt.comparing.conditions import Results
from fedlt.comparing.sheet import to_csv
from fedlt.data.shots import GROUPS
from fedlt.evaluation.headline import scored_set

FUSED = "fused"


@dataclass(frozen=True)
class StreamRow:
    """Row of a table of streams: a generic model's fused prediction, or one of its streams."""

    method: str
    stream: str  # the stream's name, or ``fused``
    runs: Sequence[Mapping[str, Any]]  # results, one per seed

    @property
    def label(self) -> str:
        """Return method and stream."""
        return f"{self.method}: {self.stream}"

    @property
    def words(self) -> dict[str, str]:
        """Return heading -> last word of a metric's name: the headline first, then class groups."""
        return scored_set(self.runs[0]).columns | {name: name for name in GROUPS}

    @property
    def metrics(self) -> dict[str, str]:
        """Return the metrics by heading."""
        start = "generic" if self.stream == FUSED else f"generic/{self.stream}"
        return {heading: f"{start}/{word}" for heading, word in self.words.items()}


def stream_rows(results: Results, which: str) -> list[StreamRow]:
    """Return the rows of methods whose streams were scored; of each, the fused prediction first.

    Args:
        results: Label -> results, one per seed.
        which: The moment.
    """
    rows = []
    for method, runs in results.items():
        scored = [name for name in runs[0].get("streams") or () if _has(runs[0], which, name)]
        names = [FUSED, *scored] if scored else []
        rows += [StreamRow(method, name, runs) for name in names]
    return rows


def _has(run: Mapping[str, Any], which: str, name: str) -> bool:
    return f"generic/{name}/accuracy" in (run.get(which) or {})


def streams_csv(which: str, tables: Mapping[str, Results]) -> str:
    """Return CSV text of the streams' metrics, unrounded, one line per run and stream.

    Args:
        which: A moment; ``all``: one line per run, stream and moment.
        tables: Setting -> its finished rows; "" without a grid.

    Returns:
        The text; empty if no model has streams.
    """
    lines = [
        ([setting, row.method, run["seed"], moment, row.stream], _figures(run, moment, row))
        for setting, results in tables.items()
        for moment in (MOMENTS if which == "all" else (which,))
        for row in stream_rows(results, moment)
        for run in row.runs
    ]
    if not lines:
        return ""
    words = list(dict.fromkeys(word for _, figures in lines for word in figures))
    head = ["setting", "method", "seed", "moment", "stream"]
    rows = ([*place, *map(figures.get, words)] for place, figures in lines)
    return to_csv([*head, *(f"generic/{word}" for word in words)], rows)


def _figures(run: Mapping[str, Any], moment: str, row: StreamRow) -> dict[str, Any]:
    """Return a run's metrics of a stream by the last word of their names."""
    known = run.get(moment) or {}
    return {row.words[name]: known.get(metric) for name, metric in row.metrics.items()}
