"""Relative paths have one rule: a path lies beside the file, or the shell, that names it.

A path in a file lies beside that file; a path on the command line lies beside the shell, in the
working directory. The rule holds for ``data.root``, ``partition.file``, ``file.py:Name`` wherever a
name may stand, and for options and hyperparameters named ``path`` or ``..._path``. ``output``, a
place to write to, lies beside the shell always.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlt.config.loading import is_spec
from fedlt.errors import FedltError

# Keys whose text may be ``file.py:Name``; a plugin's section may be its name alone.
SPECS = ("data.dataset", "model.name", "engine.name", "strategy", "strategy.name", "client",
         "client.name", "client.loss", "client.loss.name")  # fmt: skip
FREE = ("data.options.", "strategy.", "client.")  # sections with options of any name
_PLACES = ("data.root", "partition.file")
_MOST_PATH, _MOST_PART = 3900, 255  # bytes of a path, and of a name in it, on every file system


def is_path(key: str) -> bool:
    """Say whether the text of a dotted key is a path of something to read."""
    leaf = key.rpartition(".")[2]
    return key in _PLACES or (key.startswith(FREE) and (leaf == "path" or leaf.endswith("_path")))


def absolute(text: str, folder: Path, key: str) -> str:
    """Return a path absolute, taken from ``folder``; ``~`` is the home directory.

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
    """Return what stands under a dotted key of a file with its paths absolute.

    Args:
        value: Plain data: a whole tree, a section, or one value.
        folder: What its relative paths are taken from.
        key: Where it stands; "" for a whole tree.

    Raises:
        FedltError: If a path in it cannot be used.
    """
    if isinstance(value, Mapping):
        below = f"{key}." if key else ""
        return {name: with_paths(item, folder, f"{below}{name}") for name, item in value.items()}
    if not isinstance(value, str) or value == "":
        return value
    if is_path(key):
        return absolute(value, folder, key)
    source, _, attribute = value.rpartition(":")
    if key in SPECS and is_spec(value) and source.endswith(".py"):
        return f"{absolute(source, folder, key)}:{attribute}"
    return value


def output_folder(output: str, *below: str) -> str:
    """Return the folder of all run directories, absolute.

    Args:
        output: As the configuration says.
        below: Names that will stand in it; they count for the length of a path.

    Raises:
        FedltError: If no file system has such a path.
    """
    absolute("/".join([output, *below]), Path.cwd(), "output")
    return absolute(output, Path.cwd(), "output")
