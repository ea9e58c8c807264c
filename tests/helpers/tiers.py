"""Which methods the fast tests run: one of each kind. The others run with the slow ones."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

WITH_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm: the extra vit")
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
    "fedloge_experts+mdcs",  # experts as streams, heads by stream
    "fedavg+deit_lt",  # a second network, several tokens
    "fedrod+mixup+balanced_softmax",  # a data plugin that weighs, and a loss plugin
}  # fmt: skip


def in_tiers(cases: Mapping[str, Any], methods: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``changes`` over cases; methods that are not in ``KINDS`` are slow.

    Args:
        cases: Name -> changes.
        methods: Those among them that stand for a built-in method.
    """

    def marks(name: str) -> list[pytest.MarkDecorator]:
        slow = [pytest.mark.slow] if name in methods and name not in KINDS else []
        return [*slow, WITH_TIMM] if "deit_lt" in name else slow

    values = [pytest.param(changes, id=name, marks=marks(name)) for name, changes in cases.items()]
    return pytest.mark.parametrize("changes", values)
