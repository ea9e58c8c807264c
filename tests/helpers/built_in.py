"""The built-in methods, by name: the changes of the tiny configuration that choose them."""

from __future__ import annotations

from typing import Any

from clients import CLIENTS
from strategies import STRATEGIES

BASES = ("fedavg", "fedloge")  # with every plugin; the other strategies with the plainest one
NETWORKS = ("centralised", "ditto", "fedprox", "fedrep", "fedrod")  # with a second network
WITH_EXPERTS = ("centralised", "ditto", "fedloge_experts", "fedprox", "fedrep", "fedrod")
STREAMS = {"name": "fedloge_experts", "mapping": "streams", "sparsity": 0.3}  # 12 features
MDCS_LR = 0.02  # three experts' logits at a scale of 30: at 0.1 their losses rise, and rounding too
GLOBAL = {"prior": {"use": "global", "source": "oracle"}}
# Data plugins with a loss plugin, inside the strategies that plugins are made for.
PAIRS = {
    "mixup+balanced_softmax": {"name": "mixup", "loss": "balanced_softmax"},
    "discl+balanced_softmax": {"name": "discl", "loss": "balanced_softmax"},
    "class_balanced_sampling+fedyoyo": {"name": "class_balanced_sampling", "loss": "fedyoyo"},
}
BALANCED_MDCS = {"name": "class_balanced_sampling", "loss": "mdcs"}
BALANCED_DEIT_LT = {
    "name": "class_balanced_sampling",
    "loss": {"name": "deit_lt", "width": 16, "depth": 1, "heads": 2, "strong": "distort"},
}
COMPOSED = {
    "fedavg+class_balanced_sampling+mdcs": {"strategy": "fedavg", "client": BALANCED_MDCS},
    "fedavg+class_balanced_sampling+deit_lt": {"strategy": "fedavg", "client": BALANCED_DEIT_LT},
    **{
        f"{strategy}+{name}": {"strategy": strategy, "client": pair}
        for strategy in ("fedavg", "fedprox", "ditto", "fedrep", "fedrod", "fedloge")
        for name, pair in PAIRS.items()
    },
}


def with_client(strategy: str, client: str) -> dict[str, Any]:
    """Return the settings of a strategy with a plugin."""
    more = GLOBAL if CLIENTS[client].traits.needs_global_prior else {}
    if client == "mdcs":
        return {"strategy": strategy, "client": client, "local": {"lr": MDCS_LR}}
    if CLIENTS[client].traits.normed_features and strategy == "fedloge":
        return {"strategy": {"name": strategy, "etf_scale": 16.0}, "client": client, **more}
    return {"strategy": strategy, "client": client, **more}


BUILT_IN: dict[str, dict[str, Any]] = {
    **{name: {"strategy": name} for name in STRATEGIES},
    **{
        f"{s}+{c}": with_client(s, c)
        for s in BASES
        for c in CLIENTS
        if not (STRATEGIES[s].traits.needs_linear_heads and CLIENTS[c].traits.cosine_heads)
    },
    **{f"{s}+deit_lt": with_client(s, "deit_lt") for s in NETWORKS},
    **{f"{s}+mdcs": with_client(s, "mdcs") for s in WITH_EXPERTS},
    "fedloge_streams+mdcs": {"strategy": STREAMS, "client": "mdcs", "local": {"lr": MDCS_LR}},
    **COMPOSED,
}
