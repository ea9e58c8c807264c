"""Table beside the personal view: references, masks, groups, and the clients behind the figures.

docs/metrics.md defines every number.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedlt.comparing.sheet import Sheet, number
from fedlt.data.shots import GROUPS
from fedlt.evaluation.generic import mean
from fedlt.evaluation.metrics import by_heading
from fedlt.report.finished import MOMENT, Method

_SHARES = by_heading(  # in %
    *(f"personal/{word}" for word in ("majority_guess", "generic", "accuracy_held")),
    *(f"personal/{word}" for word in ("generic_held", "gain_held", "worst10", "balanced", *GROUPS)),
    "train/coverage",
    "train/coverage_few",
)
_COUNTS = {  # as they are
    "clients with many": "personal/many_clients",
    **by_heading("personal/medium_clients", "personal/few_clients"),
    **by_heading("personal/clients", "personal/never", "personal/steps"),
}
_NOTE = (
    "Accuracies in %, mean ± 95 % interval over the seeds, of the same rounds as above. Largest "
    "class: always guessing a client's largest one. Masked: predictions restricted to the classes "
    "that a client trains on, of both models. Balanced: classes of a client weighing alike. Local "
    "steps: what made a personal model since the last broadcast. Seen: the share of clients, and "
    "of the few-classes' images, that took part at least once."
)


def beside_sheet(methods: Sequence[Method]) -> Sheet:
    """Return the table of references, masked figures, groups and clients, steps, coverage."""
    rows = []
    for method in methods:
        shares = [method.cell(metric) for metric in _SHARES.values()]
        counts = [method.values(metric, MOMENT) for metric in _COUNTS.values()]
        rows.append([method.label, *shares, *(number(mean(one), ",.4g") for one in counts)])
    columns = ["method", *_SHARES, *_COUNTS]
    return Sheet("Beside the personal view", columns, rows, [_NOTE])
