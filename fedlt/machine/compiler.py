"""``engine.compile``: backbones compiled by PyTorch's compiler for the processor or GPU at hand.

Compiled arithmetic adds in another order than eager PyTorch, so results agree to a tolerance and
not by their bits.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import nn

from fedlt.errors import FedltError, one_line

MAX_CODES = 128  # codes of a module, one for each shape and mode; what goes beyond runs as it is


@cache
def check_compiler(device: str) -> None:
    """Compile and run one addition.

    Args:
        device: Type of the device, such as ``cpu``.

    Raises:
        FedltError: If PyTorch cannot compile for this device here.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "no CUDA" on a CPU
    try:
        torch.compile(_double)(torch.ones(8, device=device))
    except Exception as error:
        cause = getattr(error, "inner_exception", error)
        raise FedltError(
            f"engine.compile: PyTorch cannot compile for {device} here: {one_line(cause)}; "
            "leave engine.compile off"
        ) from error


def _double(x: torch.Tensor) -> torch.Tensor:
    return x + x


def compile_in_place(module: nn.Module) -> None:
    """Let a module's calls run compiled code; names and tensors of the module stay.

    Code is made at the first call, and again for other shapes and modes, such as evaluation: one
    code for each, so that a batch's bits do not depend on the batches before it.
    """
    torch._dynamo.config.recompile_limit = MAX_CODES
    module.compile(dynamic=False)
