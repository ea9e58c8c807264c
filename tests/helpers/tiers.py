"""Which methods the fast tests run: one of each kind. The others run with the slow ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

# Data plugins with a loss plugin, inside the strategies that plugins are made for.
PAIRS = {
    "mixup+balanced_softmax": {"name": "mixup", "loss": "balanced_softmax"},
    "class_balanced_sampling+fedyoyo": {"name": "class_balanced_sampling", "loss": "fedyoyo"},
}
BALANCED_MDCS = {"name": "class_balanced_sampling", "loss": "mdcs"}
COMPOSED = {
    "fedavg+class_balanced_sampling+mdcs": {"strategy": "fedavg", "client": BALANCED_MDCS},
    **{
        f"{strategy}+{name}": {"strategy": strategy, "client": pair}
        for strategy in ("fedavg", "fedprox", "ditto", "fedrep", "fedrod", "fedloge")
        for name, pair in PAIRS.items()
    },
}
KINDS = {
    "fedavg", "fedloge", "FedAdam",
    "scaffold",  # control variates on both sides
    "ditto",  # whole personal models
    "fedavg_ft",  # models made for the scoring
    "fedproto",  # no generic model
    "creff",  # a server that trains
    "centralised",  # no clients
    "fedavg+balanced_softmax",  # a loss that reads the prior
    "fedavg+ldam_drw",  # cosine heads and a clock
    "fedavg+fedyoyo",  # several views
    "fedavg+deit_lt",  # a second network, several tokens
    "fedrod+mixup+balanced_softmax",  # a data plugin that weighs, and a loss plugin
}  # fmt: skip


def in_tiers(cases: Mapping[str, Any], methods: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``changes`` over cases; methods that are not in ``KINDS`` are slow.

    Args:
        cases: Name -> changes.
        methods: Those among them that stand for a built-in method.
    """
    slow = [name for name in methods if name not in KINDS]
    values = [
        pytest.param(changes, id=name, marks=pytest.mark.slow if name in slow else ())
        for name, changes in cases.items()
    ]
    return pytest.mark.parametrize("changes", values)
