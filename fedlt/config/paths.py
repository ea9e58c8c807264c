"""One rule for relative paths: a path starts at the folder of the file, or of the shell, naming it.

A path in a file is relative to the folder of that file; a path on the command line is relative to
the working directory. The rule holds for ``data.root``, ``partition.file``, ``file.py:Name``
wherever a name may stand, for options and hyperparameters named ``path`` or ``..._path``, and for
the options of built-in data sets in :data:`DATA_PATHS`.
``output``, a place to write to, is always relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fedlt.config.loading import is_spec
from fedlt.errors import FedltError

# Keys whose text may be ``file.py:Name``; a method's or the model's section may be a name.
SPECS = ("data.dataset", "partition.scheme", "model", "model.name", "engine.name", "strategy",
         "strategy.name", "client", "client.name", "client.loss", "client.loss.name",
         "flower.mods", "deployment.test.dataset")  # fmt: skip
DATA_SECTIONS = ("data", "deployment.test")  # each names a data set
FREE = (  # sections with options of any name
    "data.options.", "partition.options.", "model.options.", "strategy.", "client.",
    "deployment.test.options.",
)  # fmt: skip
# Built-in data set -> its options that are paths, beside those named ``path`` and ``..._path``.
DATA_PATHS = {"list": ("train", "test", "val", "root"), "csv": ("root",)}
_PLACES = ("data.root", "model.weights", "partition.file", "deployment.test.root")
_COLUMN = "data.options.columns.path"  # the name of a column of a table
_MOST_PATH, _MOST_PART = 3900, 255  # bytes of a path, and of a name in it, on every file system


def is_path(key: str) -> bool:
    """Return True if the value of a dotted key is a path to read from."""
    leaf = key.rpartition(".")[2]
    if key == _COLUMN:
        return False
    return key in _PLACES or (key.startswith(FREE) and (leaf == "path" or leaf.endswith("_path")))


def data_paths(dataset: object, section: str = "data") -> list[str]:
    """Return the dotted keys of :data:`DATA_PATHS` of a data set that a section names."""
    names = DATA_PATHS.get(dataset, ()) if isinstance(dataset, str) else ()
    return [f"{section}.options.{name}" for name in names]


def absolute(text: str, folder: Path, key: str) -> str:
    """Return the absolute path of ``text``, relative to ``folder``; ``~`` is the home directory.

    Raises:
        FedltError: If no file system has such a path.
    """
    try:
        path = folder / Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise FedltError(f"{key}: a path that cannot be used: {error}") from error
    parts = [len(part.encode(errors="surrogateescape")) for part in path.parts]
    if max(parts) > _MOST_PART or sum(parts) + len(parts) > _MOST_PATH:
        words = f"{text[:40]!r}... has {len(text)} characters"
        raise FedltError(f"{key}: {words}, more than a path or a name in a path can have")
    if "\0" in text:
        raise FedltError(f"{key}: {text[:40]!r} has a null byte; no path has one")
    return str(path)


def with_paths(value: Any, folder: Path, key: str = "") -> Any:  # noqa: ANN401 (plain data)
    """Return the value of a dotted key with absolute paths.

    Args:
        value: Plain data: a whole tree, a section, or one value.
        folder: The folder from which relative paths start.
        key: The dotted key of the value; "" for a whole tree.

    Raises:
        FedltError: If a path in the value cannot be used.
    """
    if isinstance(value, Mapping):
        below = f"{key}." if key else ""
        return {name: with_paths(item, folder, f"{below}{name}") for name, item in value.items()}
    if isinstance(value, list) and key in SPECS:
        return [with_paths(item, folder, key) for item in value]
    if not isinstance(value, str) or value == "":
        return value
    if is_path(key):
        return absolute(value, folder, key)
    source, _, attribute = value.rpartition(":")
    if key in SPECS and is_spec(value) and source.endswith(".py"):
        return f"{absolute(source, folder, key)}:{attribute}"
    return value


def with_data_paths(
    tree: dict[str, Any], folder: Path, given: Collection[str] = ()
) -> dict[str, Any]:
    """Return a whole tree with absolute paths in the options of :data:`DATA_PATHS`.

    Args:
        tree: A configuration with all overrides.
        folder: The folder of the file.
        given: Dotted keys of the overrides, whose paths start at the working directory.

    Raises:
        FedltError: If a path cannot be used.
    """
    found = dict(tree)
    for section in DATA_SECTIONS:
        *above, last = section.split(".")
        place = found
        for name in above:
            below = place.get(name)
            if not isinstance(below, Mapping):
                break
            place[name] = dict(below)
            place = place[name]
        else:
            if isinstance(place.get(last), Mapping):
                place[last] = _with_options(place[last], section, folder, given)
    return found


def _with_options(
    data: Mapping[str, Any], section: str, folder: Path, given: Collection[str]
) -> dict[str, Any]:
    """Return a section that names a data set, with absolute paths in its options."""
    options = data.get("options")
    if not isinstance(options, Mapping):
        return dict(data)
    found = dict(options)
    for key in data_paths(data.get("dataset"), section):
        name = key.rpartition(".")[2]
        text = found.get(name)
        if isinstance(text, str) and text:
            typed = any(key == one or key.startswith(f"{one}.") for one in given)
            found[name] = absolute(text, Path.cwd() if typed else folder, key)
    return {**data, "options": found}


def output_folder(output: str, *below: str) -> str:
    """Return the absolute folder of all run directories.

    Args:
        output: The configured ``output``.
        below: Names of folders below; the names count for the length of a path.

    Raises:
        FedltError: If no file system has such a path.
    """
    absolute("/".join([output, *below]), Path.cwd(), "output")
    return absolute(output, Path.cwd(), "output")
