"""Curve of a run beside a published curve: how far apart they are, and how far a curve jumps.

A published curve has, at some rounds, the value of that round and the mean of the five rounds
around it. Both curves are compared by five-round means m_r over the rounds r that the published
curve has and of which the run has evaluated all of r - 2 to r + 2:

    distance   sqrt( mean_r (m_r - m'_r)^2 )            m of the source, m' of the run
    jump       sqrt( 5/4 mean_r (v_r - m_r)^2 )         v_r: the source's value of round r alone

The jump is the published curve's own unrest, over the same rounds, and the tolerance of the
distance. If single rounds scatter by s around a line, v_r - m_r has the variance 4/5 s^2, so that
the jump is s; two runs that differ by this scatter alone then have a distance of
sqrt(2/5) s = 0.63 s. The rest of the tolerance is for slower differences, such as those between
seeds, of which a curve of one run says nothing.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedlt.config.identity import config_hash
from fedlt.errors import FedltError, nearest, one_line
from fedlt.runs.directory import RunDirectory

if TYPE_CHECKING:
    from fedlt.comparing.cells import Runs
    from fedlt.config import Config

COLUMNS = ("setting", "row", "metric", "round", "value", "mean")
_WINDOW = 5  # rounds of a mean, the round itself in the middle
_LEAST = 5  # rounds without which a distance says nothing

CurveVerdict = Literal["within", "not within", "another quantity", "not comparable", "not measured"]


@dataclass(frozen=True)
class Curve:
    """Published curve of a row in a setting."""

    setting: str  # "" where the recipe has no settings
    row: str
    metric: str  # as in rounds.jsonl, with view and head
    unit: str
    source: str
    differs: str
    values: Mapping[int, float]  # round -> value of that round, in `unit`
    means: Mapping[int, float]  # round -> mean of the five rounds around it, in `unit`


@dataclass(frozen=True)
class ReproducedCurve:
    """Curve of a recipe: how far fedlt's lies from the published one, and the verdict."""

    setting: str
    row: str
    curve: Curve
    rounds: tuple[int, ...]  # that were compared; () for too few
    distance: float | None  # in the curve's unit; None: not measured
    tolerance: float | None  # the published curve's jump over the same rounds
    seeds: int
    word: CurveVerdict

    @property
    def span(self) -> str:
        """The compared rounds in words."""
        if not self.rounds:
            return "curve"
        return f"curve, {len(self.rounds)} rounds from {self.rounds[0]} to {self.rounds[-1]}"


def read_curves(path: Path, settings: Iterable[str], where: str) -> list[Curve]:
    """Return the curves of a file, without unit and source.

    The file is CSV with the columns :data:`COLUMNS`; lines that begin with ``#`` are comments. An
    empty mean is computed where the file has the values of all five rounds.

    Args:
        path: The file.
        settings: The settings that a line may name.
        where: Place of the file's name, for errors.

    Raises:
        FedltError: If the file cannot be read, or a line of it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = [(n, one) for n, one in enumerate(text.splitlines(), start=1) if _counts(one)]
        heading, *rows = [next(csv.reader([one], strict=True)) for _, one in lines] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FedltError(f"{where}: {path} cannot be read: {one_line(error)}") from error
    if tuple(heading) != COLUMNS:
        raise FedltError(f"{where}: {path}: the columns must be {','.join(COLUMNS)}")
    found: dict[tuple[str, str, str], tuple[dict[int, float], dict[int, float]]] = {}
    for (number, _), row in zip(lines[1:], rows, strict=True):
        place = f"{where}: {path}, line {number}"
        if len(row) != len(COLUMNS):
            raise FedltError(f"{place}: has {len(row)} columns, not {len(COLUMNS)}")
        setting, label, metric, *numbers = row
        if setting not in settings:
            raise FedltError(f"{place}: no setting {setting!r}{nearest(setting, list(settings))}")
        round_, value, mean = _numbers(place, *numbers)
        values, means = found.setdefault((setting, label, metric), ({}, {}))
        if round_ in values:
            raise FedltError(f"{place}: round {round_} stands twice")
        values[round_] = value
        if mean is not None:
            means[round_] = mean
    return [
        Curve(*key, "", "", "", values, {**five_round_means(values), **means})
        for key, (values, means) in found.items()
    ]


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _numbers(place: str, round_: str, value: str, mean: str) -> tuple[int, float, float | None]:
    """Return the numbers of a line; an empty mean is None."""
    try:
        found = int(round_), float(value), float(mean) if mean else None
    except ValueError as error:
        raise FedltError(f"{place}: expected a round and numbers: {error}") from error
    if found[0] < 1 or not all(math.isfinite(one) for one in found if one is not None):
        raise FedltError(f"{place}: expected a round from 1 on and finite numbers")
    return found


def five_round_means(values: Mapping[int, float]) -> dict[int, float]:
    """Return the mean around every round of which both neighbours on either side are known."""
    reach = _WINDOW // 2
    windows = {r: [values.get(r + step) for step in range(-reach, reach + 1)] for r in values}
    return {
        round_: statistics.fmean(known)
        for round_, window in windows.items()
        if len(known := [one for one in window if one is not None]) == _WINDOW
    }


def distance(
    curve: Curve, means: Sequence[Mapping[int, float]]
) -> tuple[tuple[int, ...], float, float] | None:
    """Return the compared rounds, the distance, and the published curve's jump over these rounds.

    Args:
        curve: The published curve.
        means: The five-round means of each seed's run, in the curve's unit; their mean over the
            seeds is compared.

    Returns:
        None if fewer than five rounds can be compared.
    """
    rounds = [r for r in sorted(curve.means) if means and all(r in own for own in means)]
    if len(rounds) < _LEAST:
        return None
    ours = {r: statistics.fmean(own[r] for own in means) for r in rounds}
    apart = _root_mean_square(ours[r] - curve.means[r] for r in rounds)
    jump = _root_mean_square(curve.values[r] - curve.means[r] for r in rounds)
    return tuple(rounds), apart, math.sqrt(_WINDOW / (_WINDOW - 1)) * jump


def _root_mean_square(values: Iterable[float]) -> float:
    return math.sqrt(statistics.fmean(value**2 for value in values))


def reproduced_curve(curve: Curve, runs: Runs, factor: float, *, judged: bool) -> ReproducedCurve:
    """Return a published curve beside the runs of its row.

    Args:
        curve: The published curve.
        runs: Finished runs with ``path``, one per seed.
        factor: Factor of a run's numbers in the curve's unit.
        judged: True if the runs differ from the recipe in their length at most.
    """
    means = [five_round_means(_of_run(run, curve.metric, factor)) for run in runs]
    found = distance(curve, means)
    if found is None:
        return ReproducedCurve(
            curve.setting, curve.row, curve, (), None, None, len(runs), "not measured"
        )
    rounds, apart, jump = found
    word: CurveVerdict = "within" if apart <= jump else "not within"
    if not judged:
        word = "not comparable"
    elif curve.differs:
        word = "another quantity"
    return ReproducedCurve(curve.setting, curve.row, curve, rounds, apart, jump, len(runs), word)


def _of_run(run: Mapping[str, Any], metric: str, factor: float) -> dict[int, float]:
    """Return a metric of a finished run by round."""
    rows = RunDirectory(Path(run["path"])).rounds()
    known = {int(row["round"]): row.get(metric) for row in rows}
    return {round_: factor * value for round_, value in known.items() if value is not None}


def is_part_of(run: Config, recipe: Config) -> bool:
    """Return True if a run is the recipe's but for its length, evaluated rounds and precision.

    Such a run has the recipe's first rounds, unless its learning rates depend on the number of all
    rounds.

    Args:
        run: A run of a scale, with the overrides of the command line.
        recipe: The same run at full scale without overrides.
    """
    schedule = recipe.local.schedule
    if run.rounds != recipe.rounds and (schedule.warmup or schedule.drops or schedule.cosine):
        return False
    every = {name: getattr(run.evaluate, name) for name in ("every", "personal_every")}
    changed = {
        "rounds": run.rounds,
        "evaluate": recipe.evaluate.model_copy(update=every),
        "local": recipe.local.model_copy(update={"precision": run.local.precision}),
    }
    return config_hash(recipe.model_copy(update=changed)) == config_hash(run)
