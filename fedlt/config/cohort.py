"""Number of clients that a round asks, from the value of ``clients_per_round``."""

from __future__ import annotations

import math


def cohort_size(given: float | None, clients: int) -> int:
    """Return the number of clients that a round asks.

    Args:
        given: The number itself, a share of the clients (above 0 and below 1, rounded, at least one
            client), or None for all clients.
        clients: Clients in the population.
    """
    if given is None:
        return clients
    return max(1, math.floor(given * clients + 0.5)) if given < 1 else int(given)
