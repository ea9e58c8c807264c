"""Packages that only generators need, and what to install where they are missing."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from fedlt.errors import FedltError


def diffusion_extra(package: str) -> Any:  # noqa: ANN401 (a module without types)
    """Return ``diffusers`` or ``transformers``.

    Raises:
        FedltError: If it is not installed, with the command.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, about each other's versions
            found = importlib.import_module(package)
            found.utils.logging.disable_progress_bar()  # a generation has one of its own
            return found
    except ImportError as error:
        raise FedltError(
            f"generators need {package}, which cannot be imported ({error}): "
            "pip install 'fedlt[diffusion]', or give client.pool_path, or use "
            "client.curriculum=oversample"
        ) from error
