"""Privacy of a run: what is refused with it, and its plan from the file and the clients' sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fedlt.config.cohort import cohort_size
from fedlt.data.arrays import IntArray
from fedlt.errors import FedltError
from fedlt.federation.cohorts import drawn_uniformly
from fedlt.privacy.plan import (
    Account,
    CentralAccount,
    LocalAccount,
    PrivacyPlan,
    SampleAccount,
)

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.strategy import Strategy


@dataclass
class Attendance:
    """Rounds in which each client was asked, counted from the draws of the cohorts."""

    seed: int
    clients: int  # K
    cohort: int
    is_known: bool = True  # False: a strategy draws itself; every client counts in every round
    _counts: list[IntArray] = field(default_factory=list)  # after rounds 0, 1, ...

    def __call__(self, round_: int) -> IntArray:
        """Return (K,) rounds up to ``round_`` in which a client was asked."""
        if not self.is_known:
            return np.full(self.clients, round_, np.int64)
        if not self._counts:
            self._counts.append(np.zeros(self.clients, np.int64))
        for number in range(len(self._counts), round_ + 1):
            counts = self._counts[-1].copy()
            counts[drawn_uniformly(self.seed, number, range(self.clients), self.cohort)] += 1
            self._counts.append(counts)
        return self._counts[round_]


def check_private(config: Config, strategy: Strategy, plugin: ClientPlugin) -> None:
    """Refuse what ``privacy`` cannot protect, and what it does not know.

    Raises:
        FedltError: With the reason.
    """
    if config.privacy is None:
        return
    mechanism, faults, name = config.privacy.mechanism, config.faults, config.strategy.name
    sent = strategy.needs_beyond_mean()
    reasons = {
        f"strategy {name!r}: trains on the images of all clients, which no update holds": (
            strategy.traits.pools
        ),
        f"strategy {name!r}: does not say what its clients send; if it is their model alone, "
        "StrategyTraits(sends='') says so": sent is None,
        f"strategy {name!r}: needs {sent}, which a private round does not release": bool(sent),
        f"prior.source: {config.prior.source} tells the server class counts, which have no noise; "
        "take own": config.prior.source != "own",
        "sampling: by_size draws clients by their images, and epsilon counts equal chances": (
            config.sampling == "by_size"
        ),
        "faults.detect: leaves updates out by norms without noise; the clipping bounds them": (
            faults.detect.is_active
        ),
        "faults.late: clients that join late change the chances that epsilon counts": (
            faults.late.share > 0
        ),
        "stop: the rounds of a private run are known before; privacy.stop_at ends it": (
            config.stop is not None
        ),
    }
    if mechanism == "sample":
        reasons |= _reasons_of_samples(config, strategy, plugin)
    for reason, holds in reasons.items():
        if holds:
            raise FedltError(f"privacy: {reason}")


def _reasons_of_samples(
    config: Config, strategy: Strategy, plugin: ClientPlugin
) -> dict[str, bool]:
    """Return the reasons against noise on single images' gradients, and whether each holds."""
    from fedlt.client import ClientPlugin as Base

    local, name = config.local, config.client.label
    known = {
        "local.steps: epsilon counts epochs": local.epochs is None,
        "local.clip: privacy.norm clips": local.clip is not None,
        "local.sam_rho: takes two gradients a step": local.sam_rho > 0,
        "local.precision: bfloat16 rounds what is clipped": local.precision != "float32",
        f"client {name!r}: its loss is no plain mean over single images": any(
            not part.traits.per_image or type(part).label_weights is not Base.label_weights
            for part in plugin.parts
        ),
        f"client {name!r}: its batches are not the client's images, each as likely": any(
            type(part).batches is not Base.batches or type(part).views is not Base.views
            for part in plugin.parts
        ),
        f"client {name!r}: trains a network of its own, whose steps epsilon does not count": any(
            type(part).train_networks is not Base.train_networks for part in plugin.parts
        ),
        f"strategy {config.strategy.name!r}: its task is more than the training of one model": (
            not strategy.traits.trains_once
        ),
    }
    return {f"mechanism: sample: {reason}": bool(holds) for reason, holds in known.items()}


def plan_privacy(
    config: Config, strategy: Strategy, sizes: IntArray, *, seed: int
) -> PrivacyPlan | None:
    """Return the plan of a private run; None where the file has no section ``privacy``.

    Args:
        config: The run.
        strategy: Its strategy.
        sizes: (K,) images of each client; of these ``central`` and ``local`` read the number K.
        seed: Keys the draws of the run.

    Raises:
        FedltError: If delta is too large, or the numbers do not fit each other.
    """
    rules = config.privacy
    if rules is None:
        return None
    clients, images = len(sizes), int(sizes.max())
    cohort = cohort_size(config.clients_per_round, clients)
    limit, of = (images, "largest client's images") if rules.mechanism == "sample" else (
        clients, "clients"
    )  # fmt: skip
    if rules.is_noisy and rules.delta * limit >= 1:
        raise FedltError(
            f"privacy.delta: {rules.delta:g} is not below 1 / {limit:,}, one over the {of}: one of "
            "them could be told whole"
        )
    account: Account
    attended = Attendance(seed, clients, cohort, is_known=strategy.traits.reduces)
    if rules.mechanism == "central":
        account = CentralAccount(rules, clients, cohort)
    elif rules.mechanism == "local":
        account = LocalAccount(rules, attended)
    else:
        batch, epochs = config.local.batch_size, config.local.epochs or 0
        steps = epochs * -(-sizes // batch)
        account = SampleAccount(rules, sizes, batch, steps, attended)
    return PrivacyPlan.of(rules, account, cohort=cohort, rounds=config.rounds)
