"""What stands beside the personal view: references, masks, groups, and whom the figures are about.

docs/metrics.md defines every number under the name in :data:`_SHARES` and :data:`_COUNTS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedlt.comparing.sheet import Sheet, number
from fedlt.evaluation.rounds import mean
from fedlt.report.finished import MOMENT, Method

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
    rows = []
    for method in methods:
        shares = [method.cell(metric) for metric in (*_SHARES.values(), *_SEEN.values())]
        counts = [method.values(metric, MOMENT) for metric in _COUNTS.values()]
        rows.append([method.label, *shares, *(number(mean(one), ",.4g") for one in counts)])
    columns = ["method", *_SHARES, *_SEEN, *_COUNTS]
    return Sheet("Beside the personal view", columns, rows, [_NOTE])
