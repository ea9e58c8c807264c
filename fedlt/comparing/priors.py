"""The class prior of a row in words, for tables and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlt.comparing.sheet import DASH

# Methods of fedlt that never read the configured prior; of a user's method this is not known.
_STRATEGIES = frozenset((
    "apfl", "balancefl", "ccvr", "centralised", "creff", "ditto", "fed_grab", "fedala", "fedavg",
    "fedavg_ft", "fedbabu", "fedbn", "feddyn", "fedetf", "fedlmd", "fedloge", "fedloge_experts",
    "fedmoswa", "fednh", "fednova", "fedntd", "fedper", "fedproto", "fedprox", "fedrep", "fedsam",
    "fedswa", "lg_fedavg", "local_only", "moon", "pfedme", "scaffold", "fedadam", "fedavgm",
    "fedyogi",
))  # fmt: skip
_CLIENTS = frozenset((
    "class_balanced", "class_balanced_sampling", "cross_entropy", "deit_lt", "fedlc", "focal",
    "infobatch", "ldam_drw", "mixup", "score_facility_location", "score_graph_cut",
    "square_root_sampling",
))  # fmt: skip


def reads_prior(strategy: str, client: str) -> bool:
    """Return False if neither part of a method reads the configured class prior.

    Args:
        strategy: The strategy's name in a result.
        client: The names of the client plugins, joined by " + ".
    """
    return strategy not in _STRATEGIES or any(n not in _CLIENTS for n in client.split(" + "))


def prior_words(run: Mapping[str, Any]) -> str:
    """Return the prior policy in a word or two: the prior, and the source of a global prior.

    A dash if the run's method reads no prior.
    """
    if not reads_prior(str(run.get("strategy")), str(run.get("client"))):
        return DASH
    prior = run.get("prior") or {}
    use, source = prior.get("use", DASH), prior.get("source", "own")
    share = f" {prior.get('gamma'):g}" if use == "mix" else ""
    return f"{use}{share}" if source == "own" else f"{use}{share} ({source})"
