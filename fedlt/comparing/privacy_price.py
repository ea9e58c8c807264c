"""Price of privacy: what clipping and noise take from the same runs without them, seed by seed.

Twins have the same configuration and the same draws but for the section ``privacy``:

    plain      noise_multiplier: 0, and no norm: cohorts and weights of a private run
    clipping   noise_multiplier: 0, with the norm of the private run
    private    the private run itself

plain - clipping is the price of clipping, clipping - private that of the noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlt.comparing.conditions import Results
from fedlt.comparing.sheet import DASH, Cell, Sheet, number, share, spread
from fedlt.evaluation.headline import headlines
from fedlt.federation.privacy_record import privacy_of

Runs = Sequence[Mapping[str, Any]]
_GROUPS = {"many": "many", "medium": "medium", "few": "few"}
_OWNERS = {"owners": "accuracy_few_owners", "others": "accuracy_others"}


@dataclass(frozen=True)
class Price:
    """Price of one private row, and its twins."""

    label: str
    private: Runs
    clipped: Runs | None  # the same without noise
    plain: Runs  # the same without noise and clipping

    @property
    def epsilon(self) -> float | None:
        """The epsilon of the row, the largest of its seeds."""
        return max((one["privacy"]["epsilon"] for one in self.private), default=None)

    def parts(self, which: str, metric: str) -> dict[str, list[float]]:
        """Return what is lost by seed: to clipping, to noise, to both. [] where it is not known."""
        plain, private = _by_seed(self.plain, which, metric), _by_seed(self.private, which, metric)
        clipped = _by_seed(self.clipped or (), which, metric)
        return {
            "clipping": _differences(plain, clipped),
            "noise": _differences(clipped, private),
            "together": _differences(plain, private),
        }


def find_prices(results: Results) -> list[Price]:
    """Return the prices of all private rows that have a plain twin among the rows."""
    kinds = {label: _kind(runs) for label, runs in results.items()}
    found = []
    for label, runs in results.items():
        if kinds[label] != "private":
            continue
        mine = privacy_of(runs[0]) or {}
        plain = [r for n, r in results.items() if kinds[n] == "plain" and _is_twin(r, mine)]
        clipped = [
            r
            for n, r in results.items()
            if kinds[n] == "clipping" and _is_twin(r, mine, "clipping", "norm")
        ]
        if plain:
            found.append(Price(label, runs, clipped[0] if clipped else None, plain[0]))
    return found


def price_sheet(results: Results, which: str) -> Sheet | None:
    """Return the table of the price of privacy, in points lost; None without twins.

    Args:
        results: The rows of a comparison.
        which: The moment.
    """
    prices = find_prices(results)
    if not prices:
        return None
    shown = price_metrics(prices[0].private[0])
    rows: list[list[object]] = []
    for price in prices:
        parts = {name: price.parts(which, metric) for name, metric in shown.items()}
        for part in ("clipping", "noise", "together"):
            cells = [spread(parts[name][part]) for name in shown]
            rows.append([f"{price.label}: {part}", *cells])
    title = "price of privacy"
    note = (
        "Points lost against the same run without noise, and without clipping, seed by seed. "
        "Owners hold an image of a few-class, others none: accuracy of their personal models."
    )
    return Sheet(title, [title, *shown], rows, [note])


def price_metrics(run: Mapping[str, Any]) -> dict[str, str]:
    """Return heading -> metric of the table of prices."""
    generic = {name: f"generic/{name}" for name in _GROUPS}
    owners = {name: f"personal/{word}" for name, word in _OWNERS.items()}
    views = headlines(run)
    return {"generic": views["generic"], **generic, "personal": views["personal"], **owners}


def clipped_sheet(results: Results) -> Sheet | None:
    """Return the table of clipped updates by kind of client; None where nothing was clipped."""
    rows: list[list[object]] = []
    names = ("owners", "others", "top")
    for label, runs in results.items():
        known = [one for run in runs if (one := privacy_of(run)) is not None and one["clipped"]]
        if not known:
            continue
        shares = {n: [one["clipped"][n] for one in known if n in one["clipped"]] for n in names}
        cells = [_mean_share(shares[name]) for name in names]
        norms = [run["final"].get("privacy/norm") for run in runs]
        last = [norm for norm in norms if norm is not None]
        rows.append([label, number(statistics.fmean(last) if last else None, ".3g"), *cells])
    if not rows:
        return None
    title = "clipped updates"
    note = (
        "Share of the updates (with `sample`: of the images) that were longer than the norm, over "
        "all rounds. Owners hold an image of a few-class, others none; the last column is the "
        "tenth of the clients with the largest share of such images. Without noise: these shares "
        "are no part of a release."
    )
    headings = [title, "last norm", "owners", "others", "most rare images"]
    return Sheet(title, headings, rows, [note])


def privacy_notes(results: Results) -> list[str]:
    """Return notes below a table with private rows: what epsilon counts, and what it leaves out."""
    lines = []
    for runs in results.values():
        for run in runs:
            own = privacy_of(run)
            if own is None or own["epsilon"] is None:
                continue
            drawn = {"poisson": "Poisson", "fixed": "fixed-size"}.get(own["sampling"])
            words = f"; {drawn} {'batches' if own['mechanism'] == 'sample' else 'cohorts'}"
            lines.append(
                f"epsilon ({own['mechanism']}) protects {own['unit']}, at delta {own['delta']:g}, "
                f"by {own['accountant'].upper()}{words if drawn else ''}"
            )
    if lines:
        lines.append(
            "searches, and these evaluations themselves, spend privacy that epsilon does not hold"
        )
    return list(dict.fromkeys(lines))


def epsilon_cells(results: Results) -> list[Cell] | None:
    """Return a cell with the epsilon of each row; None if no row has a section ``privacy``."""
    if all(_kind(runs) == "" for runs in results.values()):
        return None
    return [_epsilon_cell(runs) for runs in results.values()]


def _epsilon_cell(runs: Runs) -> Cell:
    """Return a row's epsilon, the largest of its seeds; no end without noise."""
    if _kind(runs) == "":
        return Cell(DASH)
    values = [(privacy_of(run) or {}).get("epsilon") for run in runs]
    known = [value for value in values if value is not None]
    return number(max(known), ".3g") if len(known) == len(values) else Cell("∞", math.inf)


def _kind(runs: Runs) -> str:
    """Return ``plain``, ``clipping`` or ``private``; "" for a row without privacy."""
    own = privacy_of(runs[0])
    if own is None:
        return ""
    if own["noise_multiplier"]:
        return "private"
    return "plain" if own["norm"] is None else "clipping"


def _is_twin(runs: Runs, mine: Mapping[str, Any], *equal: str) -> bool:
    own = privacy_of(runs[0]) or {}
    return all(own.get(key) == mine.get(key) for key in ("twin", "mechanism", "sampling", *equal))


def _by_seed(runs: Runs, which: str, metric: str) -> dict[int, float]:
    values = {int(run["seed"]): (run.get(which) or {}).get(metric) for run in runs}
    return {seed: float(value) for seed, value in values.items() if value is not None}


def _differences(above: Mapping[int, float], below: Mapping[int, float]) -> list[float]:
    if not above or set(above) != set(below):
        return []
    return [above[seed] - below[seed] for seed in sorted(above)]


def _mean_share(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    return share(statistics.fmean(known) if known else None)
