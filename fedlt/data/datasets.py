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
from fedlt.data.sources.csv_table import csv_table
from fedlt.data.sources.folders import folder
from fedlt.data.sources.hugging_face import hugging_face
from fedlt.data.sources.image_cache import ImageCache
from fedlt.data.sources.list_files import list_files
from fedlt.data.sources.npz_file import features, npz_file
from fedlt.data.torchvision_sets import data_root, emnist, svhn, torchvision_dataset
from fedlt.errors import FedltError, nearest

__all__ = ["DATASETS", "Dataset", "dataset_from_arrays", "load_dataset"]

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "synthetic": synthetic,
    "fashion_mnist": partial(torchvision_dataset, "fashion_mnist"),
    "cifar10": partial(torchvision_dataset, "cifar10"),
    "cifar100": partial(torchvision_dataset, "cifar100"),
    "mnist": partial(torchvision_dataset, "mnist"),
    "kmnist": partial(torchvision_dataset, "kmnist"),
    "emnist": emnist,
    "svhn": svhn,
    "folder": folder,
    "list": list_files,
    "csv": csv_table,
    "npz": npz_file,
    "huggingface": hugging_face,
    "features": features,
}


def load_dataset(
    name: str,
    *,
    root: str | None = None,
    options: Mapping[str, Any] | None = None,
    cache: ImageCache | None = None,
) -> Dataset:
    """Return a data set by name, or from a user's function.

    Args:
        name: A name of :data:`DATASETS`, or ``path/to/file.py:function`` or
            ``package.module:function`` for a function that returns a :class:`Dataset`.
        root: Folder of the files (``data.root``); given to functions with a parameter ``root``.
        options: Keyword arguments of the function (``data.options``).
        cache: Where decoded images are kept; by default the folder ``cache`` in that of the files.

    Raises:
        FedltError: If the name or an option is unknown, or the function fails or returns
            something else.
    """
    loader = _loader(name)
    arguments = dict(options or {})
    parameters = inspect.signature(loader).parameters
    _check_options(name, arguments, parameters)
    if is_cached(name):
        arguments["cache"] = cache or ImageCache(data_root(root) / "cache")
    elif root is not None and "root" in parameters:
        arguments.setdefault("root", root)
    with users_code(f"data.dataset: {name!r} fails"):
        data = loader(**arguments)
    if not isinstance(data, Dataset):
        kind = type(data).__name__
        raise FedltError(f"data.dataset: {name!r} must return a fedlt Dataset, got {kind}")
    return data


def check_name(name: str) -> None:
    """Raise unless ``name`` is a built-in data set, or has the form of a user's function.

    Raises:
        FedltError: With the nearest name.
    """
    if name not in DATASETS and not is_spec(name):
        raise FedltError(f"data.dataset: unknown {name!r}{nearest(name, DATASETS)}")


def is_cached(name: str) -> bool:
    """Return True for a built-in data set that is decoded into the cache once."""
    return name in DATASETS and "cache" in inspect.signature(DATASETS[name]).parameters


def _loader(name: str) -> Callable[..., Dataset]:
    if name in DATASETS:
        return DATASETS[name]
    check_name(name)
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
        and not (key == "cache" and is_cached(name))
    ]
    for key in options:
        if key not in named and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise FedltError(f"data.options: {name!r} has no {key!r}{nearest(key, named)}")
    for key in named:
        if key not in options and key != "root" and parameters[key].default is inspect._empty:
            raise FedltError(f"data.options: {name!r} needs {key!r}")
