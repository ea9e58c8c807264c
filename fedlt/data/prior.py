"""Log class prior that a loss adds to logits, with a rule for absent classes.

An absent class gets the offset -10,000, which takes the class out of the softmax. A client without
images of a class then sends no gradient to the class's vector ("restricted softmax", X.-C. Li,
D.-C. Zhan, "FedRS", KDD 2021, https://doi.org/10.1145/3447548.3467254). Adding a prior to logits is
logit adjustment, A. K. Menon et al., ICLR 2021, https://arxiv.org/abs/2007.07314.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError, nearest

ABSENT = -1e4  # offset of a class that must get no gradient
USES = ("local_masked", "local_floor1", "global", "mix")


def log_prior(
    client_counts: NDArray[np.int64],
    global_counts: NDArray[np.int64] | None,
    *,
    use: str,
    gamma: float = 0.5,
) -> NDArray[np.float32]:
    """Return the logarithm of a class prior.

    ``local_*`` and ``global`` are logarithms of counts, ``mix`` is the logarithm of a prior that
    sums to 1. The difference is a constant, which does not change a softmax.

    * ``local_masked``: log n_c; -1e4 for absent classes.
    * ``local_floor1``: log max(n_c, 1).
    * ``global``: log of the global counts; -1e4 for classes that no client holds.
    * ``mix``: log(gamma * local + (1 - gamma) * global), both normalised; -1e4 for a sum of 0.

    Args:
        client_counts: Class counts (C,) of this client.
        global_counts: Class counts (C,) of all clients together; None if not known.
        use: Name of the prior, as listed above.
        gamma: Share of the local prior in ``mix``, 0 .. 1.

    Returns:
        float32 (C,).

    Raises:
        FedltError: If ``use`` is unknown, or needs global counts that are not given.
    """
    if use not in USES:
        raise FedltError(f"prior.use: unknown {use!r}{nearest(use, USES)}")
    if use == "local_floor1":
        return _log(np.maximum(client_counts, 1))
    if use == "local_masked":
        return _log(client_counts)
    if global_counts is None:
        raise FedltError(f"prior.use: {use} needs prior.source sum, secure_sum or oracle")
    if use == "global":
        return _log(global_counts)
    if not 0 <= gamma <= 1:
        raise FedltError(f"prior.gamma: must be within 0 .. 1, got {gamma:g}")
    return _log(gamma * _share(client_counts) + (1 - gamma) * _share(global_counts))


def _share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(counts / max(int(counts.sum()), 1), np.float64)


def _log(values: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float32]:
    present = values > 0
    logs = np.log(np.where(present, values, 1))
    return np.where(present, logs, ABSENT).astype(np.float32)
