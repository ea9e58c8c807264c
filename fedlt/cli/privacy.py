"""``fedlt privacy``: the epsilon of a private run, and its noise, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedlt.cli.arguments import FileArgument, Overrides
from fedlt.cli.screen import screen
from fedlt.errors import FedltError

if TYPE_CHECKING:
    from fedlt.privacy.plan import PrivacyPlan

_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the rounds, a line each


def privacy(file: FileArgument, overrides: Overrides = None) -> None:
    """Show the epsilon that a private run will spend, and the noise it needs.

    Nothing is run. Give privacy.target_epsilon for the noise of a wanted epsilon, or
    privacy.noise_multiplier for the epsilon of a noise.
    """
    from fedlt.comparing.sheet import to_terminal
    from fedlt.config import load_config
    from fedlt.config.experiments import find_experiment
    from fedlt.federation import prepare_parties
    from fedlt.flower.server_half import make_server_half
    from fedlt.methods.lookup import resolve_client, resolve_strategy

    config = load_config(find_experiment(file), overrides or [])
    if config.privacy is None:
        raise FedltError(
            "privacy: the file has no such section; as privacy.norm=0.5 privacy.target_epsilon=8"
        )
    (config, *_) = config.runs()
    parties = prepare_parties(config, resolve_strategy(config), resolve_client(config))
    plan = make_server_half(parties.view).privacy
    assert plan is not None
    rows = spent_by_round(plan)
    screen().tell(*described(plan, parties.view.num_clients), "")
    screen().show(to_terminal(_sheet(rows)))
    screen().document(
        {
            "mechanism": plan.rules.mechanism,
            "unit": plan.account.unit,
            "delta": plan.rules.delta,
            "noise_multiplier": plan.noise,
            "last_round": plan.last_round,
            "spent": rows,
        }
    )


def spent_by_round(plan: PrivacyPlan) -> list[dict[str, Any]]:
    """Return the epsilon by RDP and by PLD after some rounds; None for an infinite one."""
    account, noise = plan.account, plan.noise
    rounds = sorted({max(1, round(share * plan.last_round)) for share in _SHARES})
    return [
        {
            "round": number,
            "epsilon": account.spent(noise, number) if noise else None,
            "epsilon_pld": account.tightly_spent(noise, number) if noise else None,
        }
        for number in rounds
    ]


def described(plan: PrivacyPlan, clients: int) -> list[str]:
    """Return lines about the release of a round: whom it protects, clipping, noise."""
    rules = plan.rules
    drawn = {
        "central": f"{rules.sampling} cohorts of {plan.cohort:,} of {clients:,} clients",
        "local": f"{plan.cohort:,} of {clients:,} clients a round; the server sees each update",
        "sample": f"{rules.sampling} batches; {plan.cohort:,} of {clients:,} clients a round",
    }[rules.mechanism]
    clipping = {
        "fixed": "nothing is clipped" if rules.norm is None else f"norm {rules.norm:g}",
        "quantile": f"norm that leaves {rules.quantile.target:.0%} of the updates inside",
        "tradeoff": f"norm by the tradeoff of noise and clipping, from {rules.norm or 0:g}",
    }[rules.clipping]
    lines = [
        f"{rules.mechanism}: protects {plan.account.unit}",
        f"{drawn}; {clipping}; noise multiplier {plan.noise:.4g}; delta {rules.delta:g}",
    ]
    if rules.stop_at is not None:
        lines.append(f"ends after round {plan.last_round}: privacy.stop_at {rules.stop_at:g}")
    if not plan.noise:
        lines.append("without noise there is no privacy: epsilon is infinite")
    return lines


def _sheet(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 (imported when needed)
    from fedlt.comparing.sheet import Cell, Sheet, number

    def cell(value: float | None) -> Cell:
        return Cell("∞") if value is None else number(value, ".4f")

    lines = [[str(row["round"]), cell(row["epsilon"]), cell(row["epsilon_pld"])] for row in rows]
    return Sheet("round", ["round", "epsilon (RDP)", "epsilon (PLD)"], lines)
