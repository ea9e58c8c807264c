"""The table of data sets, and loading of a data set by name or from a user's file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fedlt.config.loading import is_spec, load_users_object
from fedlt.config.raised import users_code
from fedlt.data.builtin import digits, synthetic
from fedlt.data.dataset import Dataset, dataset_from_arrays
from fedlt.data.torchvision_sets import torchvision_dataset
from fedlt.errors import FedltError, nearest

__all__ = ["DATASETS", "Dataset", "dataset_from_arrays", "load_dataset"]

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "synthetic": synthetic,
    "fashion_mnist": partial(torchvision_dataset, "fashion_mnist"),
    "cifar10": partial(torchvision_dataset, "cifar10"),
    "cifar100": partial(torchvision_dataset, "cifar100"),
}


def load_dataset(
    name: str, *, root: str | None = None, options: Mapping[str, Any] | None = None
) -> Dataset:
    """Return a data set by name, or from a user's function.

    Args:
        name: A name of :data:`DATASETS`, or ``path/to/file.py:function`` or
            ``package.module:function`` for a function that returns a :class:`Dataset`.
        root: Folder of the files (``data.root``); given to functions with a parameter ``root``.
        options: Keyword arguments of the function (``data.options``).

    Raises:
        FedltError: If the name or an option is unknown, or the function fails or returns
            something else.
    """
    loader = _loader(name)
    arguments = dict(options or {})
    parameters = inspect.signature(loader).parameters
    _check_options(name, arguments, parameters)
    if root is not None and "root" in parameters:
        arguments.setdefault("root", root)
    with users_code(f"data.dataset: {name!r} fails"):
        data = loader(**arguments)
    if not isinstance(data, Dataset):
        kind = type(data).__name__
        raise FedltError(f"data.dataset: {name!r} must return a fedlt Dataset, got {kind}")
    return data


def _loader(name: str) -> Callable[..., Dataset]:
    if name in DATASETS:
        return DATASETS[name]
    if not is_spec(name):
        raise FedltError(f"data.dataset: unknown {name!r}{nearest(name, DATASETS)}")
    loader = load_users_object(name, "data.dataset")
    if not callable(loader):
        raise FedltError(f"data.dataset: {name!r} is not a function")
    found: Callable[..., Dataset] = loader
    return found


def _check_options(
    name: str, options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Refuse options that the function does not take, and missing options that it needs."""
    kinds = {parameter.kind for parameter in parameters.values()}
    named = [
        key
        for key, parameter in parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    for key in options:
        if key not in named and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise FedltError(f"data.options: {name!r} has no {key!r}{nearest(key, named)}")
    for key in named:
        if key not in options and key != "root" and parameters[key].default is inspect._empty:
            raise FedltError(f"data.options: {name!r} needs {key!r}")
