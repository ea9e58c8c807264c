"""Which methods the fast tests leave to the slow ones: a method that is not named here is fast."""

from __future__ import annotations

from collections.abc import Container, Mapping
from importlib.util import find_spec
from typing import Any

import pytest

WITH_TIMM = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm: the extra vit")
# Another method of the same kind is fast, which exercises the same code of fedlt.
SLOW = {
    # like fedavg: the model is shared whole
    "fedprox", "fednova", "moon", "fedsam", "fedswa", "fedmoswa", "fedntd", "fedlmd", "feddyn",
    "balancefl", "fed_grab",
    # like fedloge: heads beside the shared part
    "fedper", "fedrep", "lg_fedavg", "fedbn", "fedbabu", "fedrod", "fednh", "fedloge_experts",
    # like ditto: whole personal models
    "pfedme", "apfl", "fedala", "local_only",
    # like fedavg_ft: personal models that are made when they are scored
    "fedetf",
    # like creff: a server that trains
    "ccvr",
    # plugins like balanced_softmax: another loss of the same batches
    "cross_entropy", "logit_adjustment", "fedlc", "fedir", "focal", "class_balanced",
    "equalisation", "score_facility_location", "score_graph_cut",
    # plugins like mixup: other batches
    "class_balanced_sampling", "square_root_sampling", "infobatch", "discl",
    # inside fedloge_experts instead
    "mdcs",
}  # fmt: skip
# Strategies other than FedAvg with a plugin; the pairs that are not here are slow.
FAST_PAIRS = {"fedloge_experts+mdcs", "fedrod+mixup+balanced_softmax"}


def is_slow(name: str) -> bool:
    """Say whether a built-in method, ``strategy`` or ``strategy+client``, is slow."""
    strategy, _, client = name.partition("+")
    if client:
        return name not in FAST_PAIRS and (strategy != "fedavg" or client in SLOW or "+" in client)
    return name in SLOW


def marks_of(name: str, methods: Mapping[str, Any]) -> list[pytest.MarkDecorator]:
    """Return the marks of a case; one that is not among ``methods`` is fast."""
    slow = [pytest.mark.slow] if name in methods and is_slow(name) else []
    return [*slow, WITH_TIMM] if "deit_lt" in name else slow


def slow_but(fast: Container[str], cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``changes`` over cases, all slow but those of ``fast``."""
    slow = [pytest.mark.slow]
    values = [
        pytest.param(changes, id=n, marks=[*marks_of(n, {}), *([] if n in fast else slow)])
        for n, changes in cases.items()
    ]
    return pytest.mark.parametrize("changes", values)


def in_tiers(cases: Mapping[str, Any], methods: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``changes`` over cases; the methods of ``SLOW`` are slow.

    Args:
        cases: Name -> changes.
        methods: Those among them that stand for a built-in method.
    """
    values = [
        pytest.param(changes, id=name, marks=marks_of(name, methods))
        for name, changes in cases.items()
    ]
    return pytest.mark.parametrize("changes", values)


def once_each(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``changes`` over cases; slow is only a plugin in another strategy than FedAvg."""
    values = [
        pytest.param(
            changes,
            id=name,
            marks=marks_of(name, cases if "+" in name.removeprefix("fedavg+") else {}),
        )
        for name, changes in cases.items()
    ]
    return pytest.mark.parametrize("changes", values)
