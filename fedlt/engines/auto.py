"""``engine: auto``: measure a few steps of the real task, then pick the fastest engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.engines import ENGINES, engine_class
from fedlt.engines.probe import Estimate, Probe, take_probe
from fedlt.progress import round_time

if TYPE_CHECKING:
    from fedlt.federation import Parties
    from fedlt.flower.adapter import ServerHalf
    from fedlt.worker.scorer import Host


@dataclass(frozen=True)
class Choice:
    """Choice of an engine, with the measurements behind it."""

    asked: str  # engine in the configuration
    name: str  # engine to use
    probe: Probe
    estimates: Mapping[str, Estimate]  # by engine; engines without an estimate are left out

    def lines(self) -> list[str]:
        """Return lines for the user: the reason for the engine, and the estimated cost."""
        chosen, estimates = self.name, self.estimates
        if not estimates:
            return []
        lines = [_describe(self.probe, estimates[chosen])]
        if self.asked == "auto":
            others = sorted(set(estimates) - {chosen})
            times = ", ".join(f"{n} {round_time(estimates[n].seconds)}" for n in others)
            lines.insert(0, f"engine: auto picks {chosen}; estimates of the others: {times}")
        return lines


def weigh_engines(name: str, server: ServerHalf, host: Host, parties: Parties) -> Choice:
    """Return the engine to use, and the estimated cost of a run on each engine in question.

    Args:
        name: The engine in the configuration; with ``auto`` the probe decides.
        server: The run goes on from the state of this server.
        host: The probe uses the scratch model of this host.
        parties: The parties from which an engine is made, to try the engine.

    Raises:
        FedltError: If the trial of a client's local update fails.
    """
    probe = take_probe(server, host)
    candidates = [n for n in ENGINES if n != "auto"] if name == "auto" else [name]
    found = {n: engine_class(n).estimate(server, parties, probe) for n in candidates}
    estimates = {n: estimate for n, estimate in found.items() if estimate is not None}
    chosen = min(estimates, key=lambda n: estimates[n].seconds * _handicap(n), default=name)
    return Choice(name, chosen, probe, estimates)


def _handicap(name: str) -> float:
    """Return the factor that an engine's time is multiplied by: 1.5 without the serial bits."""
    return 1.0 if engine_class(name).exact else 1.5


def _describe(probe: Probe, estimate: Estimate) -> str:
    clients = f"{estimate.clients} client{'s' if estimate.clients > 1 else ''}"
    return (
        f"estimate: {round_time(estimate.seconds)} for {probe.rounds} rounds, "
        f"{estimate.memory / 2**30:.1f} GiB of memory, {clients} at once"
    )
