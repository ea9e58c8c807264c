"""Experiments that come with fedlt, by name: ``quickstart``, ``tables/digits``, ``paper/fedloge``.

The files are those of the repository's folder ``experiments/``; a wheel has the folder inside the
package. A name is the same file in every working directory. A recipe, which is a file of
``experiments/paper/``, may be called by its last part: ``fedloge``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedlt.errors import MOST_WORD, FedltError, shortened

_RECIPES = "paper/"
_ALL = "; 'fedlt list experiments' has all names"
_PACKAGE = Path(__file__).parents[1]


def experiments_folder() -> Path:
    """Return the folder of the experiments: inside an installed package, else beside it."""
    inside = _PACKAGE / "experiments"
    return inside if inside.is_dir() else _PACKAGE.parent / "experiments"


def experiments() -> dict[str, Path]:
    """Return the files of all experiments by name, in alphabetical order."""
    folder = experiments_folder()
    found = {path.relative_to(folder).with_suffix("").as_posix(): path
             for path in folder.rglob("*.yaml")}  # fmt: skip
    return dict(sorted(found.items()))


def recipes() -> dict[str, Path]:
    """Return the files of the recipes by their short names, such as ``fedloge``."""
    return {
        name.removeprefix(_RECIPES): path
        for name, path in experiments().items()
        if name.startswith(_RECIPES)
    }


def find_experiment(name_or_path: str | Path) -> Path:
    """Return the file that a name or a path means; a file that exists at the path comes first.

    Raises:
        FedltError: If there is neither such a file nor such an experiment.
    """
    path, name = Path(name_or_path), str(name_or_path)
    try:
        if path.exists() and not path.is_dir():
            return path
    except OSError:  # a name that no file system has: its reader says so
        return path
    known = recipes() | experiments()
    if name in known:
        return known[name]
    if path.is_dir():
        return path
    if path.suffix or path.is_absolute() or name.startswith((".", "~")):
        raise FedltError(f"{name}: cannot be read: No such file or directory{_nearest(name)}")
    raise FedltError(f"no file and no experiment {shortened(name)!r}{_nearest(name)}{_ALL}")


def named_experiment(name: str) -> Path:
    """Return the file of one of fedlt's own experiments.

    Raises:
        FedltError: If no experiment has this name.
    """
    known = recipes() | experiments()
    if name not in known:
        raise FedltError(f"no experiment {shortened(name)!r}{_nearest(name)}{_ALL}")
    return known[name]


def needed_files(experiment: Path) -> list[Path]:
    """Return the files that the values of an experiment file name, relative to its folder.

    A value is a path, or ``file.py:Name``. Files outside the experiment's folder are left out.

    Raises:
        FedltError: If the experiment file cannot be read.
    """
    from fedlt.config.yaml12 import read_mapping

    folder = experiment.absolute().parent
    found: dict[Path, None] = {}
    for text in _texts(read_mapping(experiment)):
        source, _, _ = text.rpartition(":")
        name = Path(source if source.endswith(".py") else text)
        is_below = text.isprintable() and not name.is_absolute() and ".." not in name.parts
        if is_below and len(text) < 256 and (folder / name).is_file():
            found[name] = None
    return [*found]


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 (plain data)
    """Yield every text value of plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _nearest(name: str) -> str:
    """Return the part of an error line with the nearest names: those of the same last part."""
    known = experiments()
    plain = name[:MOST_WORD].removeprefix("experiments/").removesuffix(".yaml")
    close = [one for one in known if one.rpartition("/")[2] == plain.rpartition("/")[2]]
    close = close or difflib.get_close_matches(plain, [*known, *recipes()], n=1, cutoff=0.5)
    return f"; nearest: {' or '.join(map(repr, close))}" if close else ""
