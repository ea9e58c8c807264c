"""Ranges of the options of Flower's own strategies; Flower itself accepts any number.

The ranges are those of the papers: rates and tau of FedAdagrad, FedAdam and FedYogi, and their
moments' decay (Reddi et al., ICLR 2021, algorithm 2); momentum of FedAvgM (Hsu et al., 2019); the
trimmed share of FedTrimmedAvg (Yin et al., ICML 2018); q of q-FedAvg (Li et al., ICLR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedlt.errors import FedltError

_INF = math.inf
# Name -> lowest, highest, and whether each of them is allowed itself.
_RANGES: dict[str, tuple[float, float, str]] = {
    "eta": (0, _INF, "()"),
    "eta_l": (0, _INF, "()"),
    "tau": (0, _INF, "()"),  # 0 divides by zero where a parameter has not moved
    "beta_1": (0, 1, "[)"),
    "beta_2": (0, 1, "[)"),
    "server_learning_rate": (0, _INF, "()"),
    "server_momentum": (0, 1, "[)"),
    "proximal_mu": (0, _INF, "[)"),
    "beta": (0, 0.5, "[)"),
    "num_malicious_nodes": (0, _INF, "[)"),
    "num_nodes_to_select": (1, _INF, "[)"),
    "client_learning_rate": (0, _INF, "()"),
    "q": (0, _INF, "[)"),
}


def check_stock_options(cls: type, options: Mapping[str, object]) -> None:
    """Raise for an option with which a strategy of Flower's cannot train.

    Args:
        cls: The strategy; a class that is not Flower's own checks its options itself.
        options: Options of the experiment file.

    Raises:
        FedltError: With the option and its range.
    """
    if cls.__module__.partition(".")[0] != "flwr":
        return
    for name, value in options.items():
        if name not in _RANGES or not isinstance(value, int | float):
            continue
        low, high, ends = _RANGES[name]
        above = value > low or (ends[0] == "[" and value == low)
        below = value < high or (ends[1] == "]" and value == high)
        if not (above and below):
            words = f"{'at least' if ends[0] == '[' else 'more than'} {low:g}"
            words += "" if high == _INF else f" and less than {high:g}"
            raise FedltError(f"strategy.{name} is {value!r}; expected {words}")
