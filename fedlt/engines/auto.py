"""``engine: auto``: measure a few steps of the real task, then pick the fastest engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.engines import ENGINES, engine_class
from fedlt.engines.probe import Estimate, Probe, take_probe
from fedlt.progress import round_time

if TYPE_CHECKING:
    from fedlt.federation import Parties
    from fedlt.flower.adapter import ServerHalf
    from fedlt.worker.scorer import Host


def choose_engine(
    name: str, server: ServerHalf, host: Host, parties: Parties
) -> tuple[str, list[str]]:
    """Return the engine to use, and lines for the user with the reason and the estimated cost.

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
    if not estimates:
        return name, []
    chosen = min(estimates, key=lambda n: estimates[n].seconds * _handicap(n))
    lines = [_describe(probe, estimates[chosen])]
    if name == "auto":
        others = sorted(set(estimates) - {chosen})
        times = ", ".join(f"{n} {round_time(estimates[n].seconds)}" for n in others)
        lines.insert(0, f"engine: auto picks {chosen}; estimates of the others: {times}")
    return chosen, lines


def _handicap(name: str) -> float:
    """Return the factor that an engine's time is multiplied by: 1.5 without the serial bits."""
    return 1.0 if engine_class(name).exact else 1.5


def _describe(probe: Probe, estimate: Estimate) -> str:
    clients = f"{estimate.clients} client{'s' if estimate.clients > 1 else ''}"
    return (
        f"estimate: {round_time(estimate.seconds)} for {probe.rounds} rounds, "
        f"{estimate.memory / 2**30:.1f} GiB of memory, {clients} at once"
    )
