"""From a YAML file and ``key.sub=value`` overrides to a validated configuration, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedlt.config.explain import explain
from fedlt.config.identity import is_path
from fedlt.config.schema import Config, PluginConfig
from fedlt.config.yaml12 import dump, parse_value, read_mapping
from fedlt.errors import FedltError

__all__ = [
    "build_config",
    "load_config",
    "parse_options",
    "to_yaml",
]

_PLUGINS = {("strategy",), ("client",), ("client", "loss")}  # sections that may be a bare name


def _assign(tree: dict[str, Any], key: str, value: object) -> None:
    """Set the dotted ``key`` in ``tree``; a plugin's bare name becomes its section first."""
    *sections, leaf = key.split(".")
    for depth, section in enumerate(sections):
        below = tree.get(section)
        if isinstance(below, str) and tuple(sections[: depth + 1]) in _PLUGINS:
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
    """Apply ``overrides`` to ``tree`` and return them by key."""
    given = {}
    for override in overrides:
        key, text = _split(override)
        given[key] = override
        _assign(tree, key, parse_value(text, f"override {override!r}"))
    # `seed=2` on a file with seeds (or the reverse) means that one.
    for one, other in (("seed", "seeds"), ("seeds", "seed")):
        if one in given and other not in given:
            tree.pop(other, None)
    return given


def parse_options(given: Sequence[str]) -> dict[str, object]:
    """Return hyperparameters given as ``key=value``, the values read as YAML.

    Raises:
        FedltError: If one is not of that form.
    """
    options: dict[str, object] = {}
    _apply(options, given)
    return options


def _find(name: str, folder: Path) -> str:
    """Return ``name`` absolute: in the current directory if it is there, else in ``folder``."""
    path = Path(name).expanduser()
    here, there = Path.cwd() / path, folder / path
    return str(there if there.exists() and not here.exists() else here)


def _find_spec(name: str, folder: Path) -> str:
    source, _, attribute = name.rpartition(":")
    return f"{_find(source, folder)}:{attribute}" if source.endswith(".py") else name


def _make_plugin_absolute(plugin: PluginConfig, folder: Path) -> PluginConfig:
    """Return a plugin with absolute paths: of its class, and options named ``..._path``."""
    options = _with_paths(plugin.options, folder)
    update = {"name": _find_spec(plugin.name, folder), "options": options}
    return plugin.model_copy(update=update)


def _with_paths(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return options with absolute paths, in whatever depth they stand."""
    found = dict(options)
    for key, value in options.items():
        if isinstance(value, Mapping):
            found[key] = _with_paths(value, folder)
        elif is_path(key, value):
            found[key] = _find(value, folder)
    return found


def _make_absolute(config: Config, folder: Path) -> Config:
    """Return ``config`` with absolute paths, so that workers and later runs find the same files."""
    data, partition = config.data, config.partition
    root = None if data.root is None else _find(data.root, folder)
    file = None if partition.file is None else _find(partition.file, folder)
    plugins: dict[str, PluginConfig] = {
        section: _make_plugin_absolute(plugin, folder)
        for section, plugin in (("strategy", config.strategy), ("client", config.client))
    }
    loss = config.client.loss
    if loss is not None:
        own = _make_plugin_absolute(loss, folder)
        plugins["client"] = plugins["client"].model_copy(update={"loss": own})
    update: dict[str, object] = {
        "data": data.model_copy(update={"root": root, "dataset": _find_spec(data.dataset, folder)}),
        "partition": partition.model_copy(update={"file": file}),
        "engine": config.engine.model_copy(update={"name": _find_spec(config.engine.name, folder)}),
        "model": config.model.model_copy(update={"name": _find_spec(config.model.name, folder)}),
        "output": str(Path.cwd() / Path(config.output).expanduser()),
    }
    return config.model_copy(update=update | plugins)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and validate an experiment file.

    Relative paths in it (``data.root``, ``partition.file``, ``file.py:Class``) are looked for in
    the current directory first, then beside the file. ``output`` is always relative to the
    current directory. All are absolute in the result.

    Args:
        path: The YAML file.
        overrides: ``key.sub=value`` strings, applied in order; values are YAML. ``seed=`` replaces
            the file's ``seeds`` and the reverse; ``strategy=fedavg`` replaces the whole section,
            ``strategy.name=fedavg`` keeps its other keys.

    Raises:
        FedltError: One line that names the file or override, the key, its value, and what is valid.
    """
    path = Path(path)
    tree = read_mapping(path)
    if "reproduce" in tree:
        raise FedltError(f"{path}: has a section 'reproduce'; it is for fedlt reproduce")
    if "compare" in tree:
        raise FedltError(f"{path}: has a section 'compare'; it is for fedlt compare")
    return build_config(tree, path, overrides)


def build_config(
    tree: dict[str, Any], path: Path, overrides: Sequence[str] = (), *, what: str = ""
) -> Config:
    """Override and validate the content of an experiment file.

    Args:
        tree: The content; written.
        path: The file it is from.
        overrides: As in :func:`load_config`.
        what: The part of the file that it is, for messages.

    Raises:
        FedltError: As in :func:`load_config`.
    """
    given = _apply(tree, overrides)
    source = f"{path}: {what}" if what else str(path)

    def where(key: str) -> str:
        for name, override in given.items():
            if key == name or key.startswith(f"{name}."):
                return f"override {override!r}"
        return source

    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise FedltError(explain(error, Config, where)) from error
    try:
        return _make_absolute(config, path.absolute().parent)
    except (OSError, RuntimeError, ValueError) as error:
        raise FedltError(f"{path}: a path in it cannot be used: {error}") from error


def to_yaml(config: Config) -> str:
    """Return ``config`` as YAML text that loads back to an equal configuration."""
    tree = config.model_dump(mode="json")
    tree.pop("seed" if config.seeds is not None else "seeds")
    return dump(tree)
