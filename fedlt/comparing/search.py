"""Searches for hyperparameters: every combination of lists, or proposals of Optuna.

A space maps dotted keys to choices: a list of values, or a range such as ``0.1..0.9``,
``log:0.003..0.3`` or, between whole numbers, ``1..10``. A search proposes values in batches
and is told their scores. All random numbers come from the seed, and the size of a batch does not
depend on the number of parallel runs. So the same command proposes the same values again, and
finished trials are only read.

The proposals are those of the tree-structured Parzen estimator of Bergstra, Bardenet, Bengio and
Kégl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, by Optuna (Akiba et al., KDD
2019, arXiv:1907.10902): the first ten are random, later ones lie where scores were high.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fedlt.errors import FedltError

BATCH = 4  # proposals made before a proposal is scored
DIGITS = 3  # significant digits of a proposed number
TRIED = "tried: score in %"  # heading of the column of :func:`tried`

_RANGE = re.compile(r"(log:)?\s*(\S+?)\s*\.\.\s*(\S+)")
_FIXED = (  # sections of data, evaluation and machine, which hold no hyperparameters
    "data", "partition", "evaluate", "seed", "seeds", "rng_salt", "faults", "engine", "checkpoint",
    "name", "output", "personal",
)  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Range of numbers from ``low`` to ``high``."""

    low: float
    high: float
    log: bool = False  # even in the logarithm
    whole: bool = False  # whole numbers only


Choices = Sequence[Any] | Range
Space = Mapping[str, Choices]  # dotted key -> choices
Values = tuple[tuple[str, Any], ...]  # dotted key and value


class Search(Protocol):
    """Search that proposes values until none are left."""

    def ask(self) -> list[Values]:
        """Return the next batch of values to try; [] at the end."""

    def tell(self, scores: Sequence[float | None]) -> None:
        """Take the scores of the last batch, in order; None: the trial failed."""


def check_key(key: str) -> None:
    """Raise unless a search may change ``key``; data and evaluation are fixed.

    Raises:
        FedltError: If the key is fixed.
    """
    if key.partition(".")[0] in _FIXED:
        raise FedltError(f"search: {key} is no hyperparameter of a method")


def parse_choices(given: object) -> Choices | None:
    """Return the choices of a file or an option: a non-empty list, or a range from text.

    Returns:
        None if ``given`` is neither.

    Raises:
        FedltError: If a range is empty.
    """
    if isinstance(given, list):
        return given or None
    match = _RANGE.fullmatch(given.strip()) if isinstance(given, str) else None
    if match is None:
        return None
    log, low, high = match.groups()
    try:
        whole = all(re.fullmatch(r"[+-]?\d+", end) for end in (low, high))
        found = Range(float(low), float(high), log is not None, whole)
    except ValueError:
        return None
    finite = math.isfinite(found.low) and math.isfinite(found.high)
    if not finite or found.low >= found.high or (found.log and found.low <= 0):
        positive = ", both above 0" if found.log else ""
        raise FedltError(f"search: {given!r}: expected a range from low to high{positive}")
    return found


class Grid:
    """Search over every combination of lists, in order."""

    def __init__(self, space: Space) -> None:
        """Store the space.

        Raises:
            FedltError: If a key has a range.
        """
        for key, choices in space.items():
            if isinstance(choices, Range):
                raise FedltError(f"search: {key} has a range; give --trials N")
        lists = [choices for choices in space.values() if not isinstance(choices, Range)]
        self._left = [
            tuple(zip(space, values, strict=True)) for values in itertools.product(*lists)
        ]

    def ask(self) -> list[Values]:
        """Return all combinations at the first call, then []."""
        left, self._left = self._left, []
        return left

    def tell(self, scores: Sequence[float | None]) -> None:
        """Ignore the scores."""


class Optuna:
    """Search by ``trials`` proposals of Optuna's TPE sampler."""

    def __init__(self, space: Space, *, trials: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._left = trials
        self._asked: list[optuna.trial.Trial] = []
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def ask(self) -> list[Values]:
        """Return the next batch."""
        size = min(BATCH, self._left)
        self._left -= size
        self._asked = [self._study.ask() for _ in range(size)]
        return [
            tuple((key, _suggest(trial, key, own)) for key, own in self._space.items())
            for trial in self._asked
        ]

    def tell(self, scores: Sequence[float | None]) -> None:
        """Give the sampler the scores."""
        import optuna

        for trial, score in zip(self._asked, scores, strict=True):
            if score is None or not math.isfinite(score):
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(trial, score)


def _suggest(trial: Any, key: str, choices: Choices) -> Any:  # noqa: ANN401 (any option's value)
    """Return a proposed value; numbers of a range are rounded to a few digits."""
    if not isinstance(choices, Range):
        position = trial.suggest_categorical(key, list(range(len(choices))))
        return choices[position]
    low, high = choices.low, choices.high
    if choices.whole:
        return trial.suggest_int(key, int(low), int(high), log=choices.log)
    value = float(f"{trial.suggest_float(key, low, high, log=choices.log):.{DIGITS}g}")
    return min(max(value, low), high)


def described(values: Values) -> str:
    """Return values as text such as ``lr=0.1 mu=0.01``, with the last word of each key.

    The value of a section is told by name and options: ``strategy=pfedme lam=2.0``.
    """
    words = []
    for key, value in values:
        last = key.rpartition(".")[2]
        named = isinstance(value, dict) and "name" in value
        told = {last: value["name"], **value} if named else {last: value}
        words += [f"{name}={_text(one)}" for name, one in told.items() if name != "name"]
    return " ".join(words)


def tried(trials: Sequence[tuple[Values, float | None]]) -> str:
    """Return trials with their scores in percent as text, the first of the best in bold.

    Args:
        trials: Values and scores (shares); None: the trial failed.
    """
    best = max((score for _, score in trials if score is not None), default=None)
    first = next((i for i, (_, score) in enumerate(trials) if score == best), None)
    words = []
    for i, (values, score) in enumerate(trials):
        text = f"{described(values)}: {'failed' if score is None else f'{100 * score:z.1f}'}"
        words.append(f"**{text}**" if i == first and best is not None else text)
    return ", ".join(words)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
