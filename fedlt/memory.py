"""Tensors over memory that somebody else owns."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor"]


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Wrap an array without a copy, also a read-only one (mapped by Ray), which nobody writes."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
