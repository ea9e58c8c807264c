"""Pictures of a report, one file per question.

curves.py    both views over the rounds
classes.py   accuracy per class, the frequent classes first
groups.py    many / medium / few
per_stream.py   many / medium / few for every expert or token alone
per_client.py   the clients' class counts and accuracies
gains.py     gain of personal models by kind of client
price.py     seconds and bytes per round
privacy.py   points lost to clipping and noise
ranks.py     number of directions that the features of every block use
diagnostics.py   diagnostics of the models, if the runs measured them

Each function takes the methods in order and returns pictures: none if the runs lack the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedlt.report.figures.classes import class_accuracy
from fedlt.report.figures.curves import learning_curves
from fedlt.report.figures.diagnostics import class_vectors, diagnostics
from fedlt.report.figures.gains import gain_by_size, tail_owners
from fedlt.report.figures.groups import group_bars
from fedlt.report.figures.per_client import client_distribution, partition_and_accuracy
from fedlt.report.figures.per_stream import stream_accuracy
from fedlt.report.figures.price import price
from fedlt.report.figures.privacy import privacy_price
from fedlt.report.figures.ranks import token_ranks
from fedlt.report.finished import Method
from fedlt.report.picture import Picture

__all__ = ["all_pictures"]

_ORDER = (
    group_bars,
    stream_accuracy,
    learning_curves,
    class_accuracy,
    partition_and_accuracy,
    client_distribution,
    gain_by_size,
    tail_owners,
    price,
    privacy_price,
    diagnostics,
    class_vectors,
    token_ranks,
)


def all_pictures(methods: Sequence[Method]) -> list[Picture]:
    """Return all pictures for which the runs have numbers, in reading order."""
    return [picture for draw in _ORDER for picture in draw(methods)]
