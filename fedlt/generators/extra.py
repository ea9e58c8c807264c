"""Import of packages that only generators need, with a hint if they are not installed."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from fedlt.errors import FedltError


def diffusion_extra(package: str) -> Any:  # noqa: ANN401 (a module without types)
    """Return the package ``diffusers`` or ``transformers``, imported.

    Raises:
        FedltError: If the package is not installed; the message gives the command to install it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the packages warn of each other's versions
            found = importlib.import_module(package)
            found.utils.logging.disable_progress_bar()  # fedlt shows its own progress
            return found
    except ImportError as error:
        raise FedltError(
            f"generators need {package}, which cannot be imported ({error}): "
            "pip install 'fedlt[diffusion]', or give client.pool_path, or use "
            "client.curriculum=oversample"
        ) from error
