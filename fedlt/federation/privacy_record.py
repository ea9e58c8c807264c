"""Record of a private run for rounds.jsonl and result.json: epsilon spent, updates clipped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.config import config_hash
from fedlt.data.arrays import BoolArray, FloatArray
from fedlt.privacy.plan import PrivacyPlan, SampleAccount

if TYPE_CHECKING:
    from fedlt.config import Config
    from fedlt.evaluation import Metric
    from fedlt.federation.ledger import Ledger, RoundOutcome
    from fedlt.federation.observer import Observer


class PrivacyRecord:
    """Record of a private run: of its plan, and of what the observer of a simulation sees.

    Shares of clipped updates are without noise: the experimenter's, and no part of a release.
    """

    def __init__(self, plan: PrivacyPlan, observer: Observer) -> None:
        self.plan = plan
        self._groups = tail_owners(observer)
        self._twin = twin_hash(observer.config)

    def of_round(self, outcome: RoundOutcome, ledger: Ledger) -> dict[str, Metric]:
        """Return the metrics of a round's release; clipped updates are counted in the ledger."""
        made = outcome.release
        if made is None:
            return {}
        found: dict[str, Metric] = {"privacy/norm": made.norm, "privacy/signal": made.signal}
        found["privacy/clipped"] = None
        cut, whole = self._clipped(outcome, made.norm)
        if whole is not None:
            found["privacy/clipped"] = _share_of([cut.sum(), whole.sum()])
            cids = np.asarray(outcome.answered, np.int64)
            for name, owns in self._groups.items():
                counts = ledger.clipped.setdefault(name, [0, 0])
                now = [int(part[owns[cids]].sum()) for part in (cut, whole)]
                found[f"privacy/clipped_{name}"] = _share_of(now)
                counts[:] = [counts[0] + now[0], counts[1] + now[1]]
        return found

    def _clipped(
        self, outcome: RoundOutcome, norm: float | None
    ) -> tuple[FloatArray, FloatArray | None]:
        """Return clipped and all updates of each client that answered; images with ``sample``.

        The second array is None where nothing is clipped, or no client tells.
        """
        lists = {name: np.asarray(values) for name, values in outcome.lists.items()}
        nobody = np.zeros(0)
        if norm is None:
            return nobody, None
        if "clipped" in lists:
            return lists["clipped"], lists["examples"]
        if "norm" in lists:
            lengths = lists["norm"]
            return (lengths > norm).astype(np.float64), np.ones(len(lengths))
        return nobody, None

    def spent(self, round_: int) -> dict[str, Metric]:
        """Return the epsilon spent after a round, by RDP and by PLD; None without noise.

        PLD is left out where clients release differently often: it takes a second for each of them.
        """
        plan = self.plan
        found: dict[str, Metric] = {
            "privacy/epsilon": _known(plan.account.spent(plan.noise, round_))
        }
        if len(plan.account.releases(plan.noise, round_)) == 1:
            tight = plan.account.tightly_spent(plan.noise, round_)
            found["privacy/epsilon_pld"] = _known(tight)
        if isinstance(plan.account, SampleAccount) and plan.noise:
            by_client = plan.account.by_client(plan.noise, round_)
            found["privacy/epsilon_median"] = float(np.median(by_client))
            owners = self._groups.get("owners")
            if owners is not None and owners.any():
                found["privacy/epsilon_owners"] = float(by_client[owners].max())
        return found

    def result(self, round_: int, ledger: Ledger) -> dict[str, Any]:
        """Return what ``result.json`` says of privacy after the last round."""
        plan, rules = self.plan, self.plan.rules
        tight = plan.account.tightly_spent(plan.noise, round_)
        return {
            "twin": self._twin,
            "mechanism": rules.mechanism,
            "unit": plan.account.unit,
            "epsilon": _known(plan.account.spent(plan.noise, round_)),
            "epsilon_pld": _known(tight),
            "delta": rules.delta,
            "accountant": "rdp",
            "sampling": "none" if rules.mechanism == "local" else rules.sampling,
            "noise_multiplier": plan.noise,
            "clipping": rules.clipping,
            "norm": plan.first_norm,
            "cohort": plan.cohort,
            "clipped": {name: _share_of(counts) for name, counts in ledger.clipped.items()},
        }


def twin_hash(config: Config) -> str:
    """Return a hash that is the same for runs that differ in ``privacy`` and seed alone."""
    return config_hash(config.model_copy(update={"privacy": None, "seed": 0, "seeds": None}))


def tail_owners(observer: Observer) -> dict[str, BoolArray]:
    """Return groups of clients (K,) by their images of few-classes; {} without such classes.

    ``owners`` hold an image of a few-class, ``others`` none; ``top`` is the tenth of all clients
    whose share of such images is largest.
    """
    few = list(dict(observer.shots.items()).get("few", ()))
    counts = observer.data.client_counts
    if not few or not counts.any():
        return {}
    images = counts[:, few].sum(axis=1)
    shares = images / np.maximum(counts.sum(axis=1), 1)
    top = np.argsort(-shares, kind="stable")[: math.ceil(len(shares) / 10)]
    is_top = np.zeros(len(shares), np.bool_)
    is_top[top] = shares[top] > 0
    return {"owners": images > 0, "others": images == 0, "top": is_top}


def _known(value: float | None) -> float | None:
    """Return a finite epsilon; None for an infinite or an unknown one."""
    return value if value is not None and math.isfinite(value) else None


def _share_of(counts: Sequence[float]) -> float | None:
    return float(counts[0] / counts[1]) if counts[1] else None


def privacy_of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the entry ``privacy`` of a result; None for a run without privacy, or an older one."""
    found: Mapping[str, Any] | None = result.get("privacy")
    return found
