"""Finished runs as pandas frames: by round, by class, by client; and comparisons by run.

Columns have the project's own words, and shares are fractions, not percent. docs/python.md lists
the columns, docs/metrics.md defines the metrics. pandas is imported here only, when it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.data.arrays import FloatArray
from fedlt.data.shots import GROUPS
from fedlt.errors import FedltError
from fedlt.evaluation.generic import recalls
from fedlt.evaluation.metrics import spec_of

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from fedlt.comparing.conditions import Results
    from fedlt.comparing.verdicts import Verdict
    from fedlt.report.finished import RunRecord

_PRICES = ("seconds", "bytes_down", "bytes_up")  # columns after the metrics of a run


def load_pandas() -> Any:  # noqa: ANN401 (a module)
    """Return pandas, imported.

    Raises:
        FedltError: If pandas is not installed; the message gives the command to install it.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise FedltError(f"frames need pandas ({error}): pip install 'fedlt[pandas]'") from error


def rounds_frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Return one row per scored round, with the columns ``round``, the metrics, and ``seconds``.

    Args:
        rows: The lines of ``rounds.jsonl``. A metric that a round lacks is missing in its row.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in ("round", "seconds"))
    columns = {
        "round": _whole([row["round"] for row in rows]),
        **{name: _metric(name, [row.get(name) for row in rows]) for name in names},
        "seconds": _real([row.get("seconds") for row in rows]),
    }
    frame: DataFrame = load_pandas().DataFrame(columns)
    return frame


def classes_frame(record: RunRecord) -> DataFrame:
    """Return one row per class, after the last round of a run.

    Columns: ``class`` (number), ``name``, ``images`` (training images of all clients),
    ``test_images``, ``group`` (ordered: few < medium < many; missing for a class in no group),
    ``generic/recall`` of the primary head, ``generic/<head>/recall`` of every other generic head
    and of every stream, and ``personal/recall``, the mean over the clients that hold the class. The
    recall of a class without test images is missing.
    """
    pandas, evaluation = load_pandas(), record.evaluation
    classes = len(evaluation.test_counts)
    found = {
        "class": np.arange(classes),
        "name": record.class_names,
        "images": record.class_counts,
        "test_images": evaluation.test_counts,
        "group": _groups(record, classes),
        **_generic_recalls(record),
    }
    if record.personal_recalls is not None:
        found["personal/recall"] = record.personal_recalls
    frame: DataFrame = pandas.DataFrame(found)
    return frame


def _groups(record: RunRecord, classes: int) -> Any:  # noqa: ANN401 (a pandas array)
    named = {label: name for name, labels in record.shots.items() for label in labels}
    values = [named.get(label) for label in range(classes)]
    return load_pandas().Categorical(values, categories=list(reversed(GROUPS)), ordered=True)


def _generic_recalls(record: RunRecord) -> dict[str, FloatArray]:
    """Return the recalls (C,) of every generic head and stream by column."""
    scores = record.evaluation.generic
    tables = [*scores.confusion, *scores.stream_confusion]
    names = ["generic/recall", *(f"generic/{name}/recall" for name in scores.heads[1:])]
    names = names[: len(scores.heads)] + [f"generic/{name}/recall" for name in scores.streams]
    return {name: recalls(table) for name, table in zip(names, tables, strict=True)}


def clients_frame(record: RunRecord) -> DataFrame:
    """Return one row per client, after the last round of a run.

    Columns: ``client`` (number), ``images`` (training images), ``classes`` (held by the client),
    ``accuracy`` of the client's own model on the client's class mix, ``generic`` of the generic
    model on the same, ``gain`` (the difference), ``majority_guess`` (accuracy of always guessing
    the client's largest class), ``owns_few`` (whether the client holds an image of a few-class;
    missing without groups), and ``participated`` (whether the client was sampled at least once).
    The accuracies of a client that was not scored are missing.
    """
    pandas, evaluation = load_pandas(), record.evaluation
    counts = evaluation.client_counts
    few = list(record.shots.few)
    owns = counts[:, few].sum(axis=1) > 0 if few else [None] * len(counts)
    found = {
        "client": np.arange(len(counts)),
        "images": counts.sum(axis=1),
        "classes": (counts > 0).sum(axis=1),
        **_accuracies(record, len(counts)),
        "majority_guess": record.majority_guesses,
        "owns_few": pandas.array(owns, dtype="bool" if few else "boolean"),
        "participated": evaluation.participated,
    }
    frame: DataFrame = pandas.DataFrame(found)
    return frame


def _accuracies(record: RunRecord, clients: int) -> dict[str, FloatArray]:
    """Return the columns (K,) of the scored clients; NaN for the other clients."""
    found = {name: np.full(clients, np.nan) for name in ("accuracy", "generic", "gain")}
    figures = record.clients
    for name, column in found.items():
        values = None if figures is None else getattr(figures, name)
        if figures is not None and values is not None:
            column[figures.cids] = values
    return found


def runs_frame(results: Results, which: str) -> DataFrame:
    """Return one row per run of a comparison: ``method``, ``seed``, metrics and prices, unrounded.

    Args:
        results: Label -> results, one per seed.
        which: The moment of the metrics: ``final``, ``last_k``, ``selected`` or ``best_on_test``.
    """
    pairs = [(label, run) for label, runs in results.items() for run in runs]
    metrics: list[Mapping[str, Any]] = [run.get(which) or {} for _, run in pairs]
    names = dict.fromkeys(name for one in metrics for name in one if "/" in name)
    columns = {
        "method": [label for label, _ in pairs],
        "seed": _whole([run["seed"] for _, run in pairs]),
        **{name: _real([one.get(name) for one in metrics]) for name in names},
        **{name: _real([run.get(name) for _, run in pairs]) for name in _PRICES},
    }
    frame: DataFrame = load_pandas().DataFrame(columns)
    return frame


def verdicts_frame(found: Sequence[Verdict]) -> DataFrame:
    """Return one row per verdict.

    Columns: ``view``, ``method``, ``against``, ``metric``, ``verdict``, ``seeds``, ``difference``
    (method minus reference, a fraction), ``half`` (of its 95 % interval), ``p_holm``, ``effect``,
    ``clients_higher``, ``clients_lower``. What was not computed is missing.
    """
    words = ("view", "row", "against", "metric", "word")
    heads = ("view", "method", "against", "metric", "verdict")
    columns: dict[str, Any] = {
        head: [getattr(one, word) for one in found] for head, word in zip(heads, words, strict=True)
    }
    columns["seeds"] = _whole([one.test.seeds for one in found])
    numbers: dict[str, list[Any]] = {
        "difference": [one.test.difference.mean for one in found],
        "half": [one.test.difference.half for one in found],
        "p_holm": [one.p for one in found],
        "effect": [one.test.effect for one in found],
        "clients_higher": [one.clients and one.clients[0] for one in found],
        "clients_lower": [one.clients and one.clients[1] for one in found],
    }
    columns |= {name: _real(values) for name, values in numbers.items()}
    frame: DataFrame = load_pandas().DataFrame(columns)
    return frame


def _metric(name: str, values: Sequence[Any]) -> Series:
    """Return a metric's column: a count is a whole number, everything else is real."""
    is_count = spec_of(name).unit == "count"
    whole = all(value is None or float(value).is_integer() for value in values)
    return _whole(values) if is_count and whole else _real(values)


def _whole(values: Sequence[Any]) -> Series:
    """Return a column of whole numbers; with gaps in pandas' own type for them."""
    kind = "Int64" if any(value is None for value in values) else "int64"
    column: Series = load_pandas().Series(values, dtype=kind)
    return column


def _real(values: Sequence[Any]) -> Series:
    numbers = [np.nan if value is None else float(value) for value in values]
    column: Series = load_pandas().Series(numbers, dtype="float64")
    return column
