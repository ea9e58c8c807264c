"""What stands beside the personal view: references, masks, groups, and whom the figures are about.

docs/metrics.md defines every number under the name in :data:`_SHARES` and :data:`_COUNTS`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fedlt.comparing.cells import mark
from fedlt.report.finished import MOMENT, Method
from fedlt.report.picture import Cell, Sheet, number, spread

_SHARES = {  # heading -> metric, in %
    "largest class": "personal/majority_guess",
    "generic model": "personal/generic",
    "masked": "personal/accuracy_held",
    "generic, masked": "personal/generic_held",
    "gain, masked": "personal/gain_held",
    "worst 10 %": "personal/worst10",
    "balanced": "personal/balanced",
    "many": "personal/many",
    "medium": "personal/medium",
    "few": "personal/few",
}
_COUNTS = {  # heading -> metric, as it is
    "clients with many": "personal/many_clients",
    "with medium": "personal/medium_clients",
    "with few": "personal/few_clients",
    "clients scored": "personal/clients",
    "never sampled": "personal/never",
    "local steps": "personal/steps",
}
_SEEN = {"clients seen": "train/coverage", "few-images seen": "train/coverage_few"}
_NOTE = (
    "Accuracies in %, mean ± 95 % interval over the seeds, of the same rounds as above. Largest "
    "class: always guessing a client's largest one. Masked: predictions restricted to the classes "
    "that a client trains on, of both models. Balanced: classes of a client weighing alike. Local "
    "steps: what made a personal model since the last broadcast. Seen: the share of clients, and "
    "of the few-classes' images, that took part at least once."
)


def beside_sheet(methods: Sequence[Method]) -> Sheet:
    """Return references, masked figures, groups with their clients, steps and coverage."""
    rows: list[list[Cell | str]] = []
    for method in methods:
        shares = [_share(method, metric) for metric in (*_SHARES.values(), *_SEEN.values())]
        counts = [method.values(metric, MOMENT) for metric in _COUNTS.values()]
        means = [number(statistics.fmean(one) if one else None, ",.4g") for one in counts]
        rows.append([method.label, *shares, *means])
    return Sheet(["method", *_SHARES, *_SEEN, *_COUNTS], rows, _NOTE)


def _share(method: Method, metric: str) -> Cell:
    cell = spread(method.values(metric, MOMENT), signed=metric == "personal/gain_held")
    sign = mark(method.results, metric) if cell.value is not None else ""
    return Cell(f"{sign}{cell.text}", cell.value)
