"""The class prior of a row in words, for tables and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlt.comparing.sheet import DASH
from fedlt.methods.lookup import is_built_in

# Methods of fedlt that read the configured prior; of a user's method this is not known.
_READERS = frozenset((
    "balanced_softmax", "discl", "equalisation", "fedir", "fedyoyo", "logit_adjustment", "mdcs",
    "fedrod",
))  # fmt: skip


def reads_prior(strategy: str, client: str) -> bool:
    """Return False if neither part of a method reads the configured class prior.

    Args:
        strategy: The strategy's name in a result.
        client: The names of the client plugins, joined by " + ".
    """
    parts = [("strategy", strategy), *(("client", name) for name in client.split(" + "))]
    return any(name in _READERS or not is_built_in(section, name) for section, name in parts)


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
