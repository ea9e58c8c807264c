"""Validated configurations from a YAML file and ``key.sub=value`` overrides, and back to YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedlt.config.explain import explain
from fedlt.config.paths import output_folder, with_data_paths, with_paths
from fedlt.config.schema import Config
from fedlt.config.yaml12 import dump, parse_value, read_mapping
from fedlt.errors import FedltError, shortened

_NAMES = {("strategy",), ("client",), ("client", "loss"), ("model",)}  # may be a bare name
_EITHER = (("seed", "seeds"), ("local.epochs", "local.steps"))  # a file gives one key of each pair
_INSTEAD = (*_EITHER, *((other, one) for one, other in _EITHER))


def _assign(tree: dict[str, Any], key: str, value: object) -> None:
    """Set the dotted ``key`` in ``tree``; a bare name is expanded to a section first."""
    *sections, leaf = key.split(".")
    for depth, section in enumerate(sections):
        below = tree.get(section)
        if isinstance(below, str) and tuple(sections[: depth + 1]) in _NAMES:
            below = {"name": below}
        elif below is None:
            below = {}
        elif not isinstance(below, dict):
            path = ".".join(sections[: depth + 1])
            raise FedltError(f"{key}: {path} is {below!r}; expected a mapping (key: value)")
        tree[section] = below
        tree = below
    tree[leaf] = value


def _split(override: str) -> tuple[str, str]:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(part.strip() for part in key.split(".")):
        raise FedltError(f"override {override!r}: expected key=value, such as local.lr=0.1")
    return key, text


def _apply(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Apply ``overrides`` to ``tree`` and return them by key; paths start at the shell's folder."""
    given = {}
    for override in overrides:
        key, text = _split(override)
        given[key] = override
        value = parse_value(text, f"override {shortened(override)!r}")
        _assign(tree, key, with_paths(value, Path.cwd(), key))
    # `seed=2` on a file with seeds (or the reverse) replaces the file's key.
    for one, other in _INSTEAD:
        if one in given and other not in given:
            section, _, leaf = other.rpartition(".")
            (tree[section] if section else tree).pop(leaf, None)
    return given


def parse_options(given: Sequence[str]) -> dict[str, object]:
    """Return hyperparameters given as ``key=value``, the values read as YAML.

    Raises:
        FedltError: If an option is not of that form.
    """
    options: dict[str, object] = {}
    _apply(options, given)
    return options


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the validated configuration of an experiment file with overrides.

    Paths are absolute in the result: paths of the file start at its folder, paths of overrides and
    ``output`` at the working directory (:mod:`fedlt.config.paths`).

    Args:
        path: The YAML file.
        overrides: ``key.sub=value`` strings, applied in order; values are YAML. ``seed=`` replaces
            the file's ``seeds`` and the reverse, as do ``local.epochs`` and ``local.steps``;
            ``strategy=fedavg`` replaces the whole section, ``strategy.name=fedavg`` keeps its other
            keys; ``client=`` and ``model=`` likewise.

    Raises:
        FedltError: One line that names the file or override, the key, its value, and what is valid.
    """
    path = Path(path)
    return load_content(read_mapping(path), path, overrides)


def load_content(tree: dict[str, Any], path: Path, overrides: Sequence[str] = ()) -> Config:
    """Return the validated configuration of a run from the content of a file, with overrides.

    Args:
        tree: The content; changed in place.
        path: The file of the content; relative paths start at its folder.
        overrides: As in :func:`load_config`.

    Raises:
        FedltError: As in :func:`load_config`.
    """
    if "reproduce" in tree:
        raise FedltError(f"{path}: has a section 'reproduce'; fedlt reproduce FILE runs it")
    if "compare" in tree:
        raise FedltError(f"{path}: has a section 'compare'; fedlt compare FILE runs its rows")
    return build_config(tree, path, overrides)


def build_config(
    tree: dict[str, Any], path: Path, overrides: Sequence[str] = (), *, what: str = ""
) -> Config:
    """Return the validated configuration of an experiment file's content with overrides.

    Args:
        tree: The content; changed in place.
        path: The file of the content.
        overrides: As in :func:`load_config`.
        what: The part of the file that ``tree`` comes from, for messages.

    Raises:
        FedltError: As in :func:`load_config`.
    """
    tree = with_paths(tree, path.absolute().parent)
    given = _apply(tree, overrides)
    tree = with_data_paths(tree, path.absolute().parent, given)
    source = f"{path}: {what}" if what else str(path)

    def where(key: str) -> str:
        for name, override in given.items():
            if key == name or key.startswith(f"{name}."):
                return f"override {shortened(override)!r}"
        return source

    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise FedltError(explain(error, Config, where)) from error
    output = output_folder(config.output, config.name)
    return config.model_copy(update={"output": output})


def to_yaml(config: Config) -> str:
    """Return ``config`` as YAML text that loads back to an equal configuration."""
    tree = config.model_dump(mode="json")
    tree.pop("seed" if config.seeds is not None else "seeds")
    return dump(tree)
