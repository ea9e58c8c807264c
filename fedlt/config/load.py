"""From a YAML file and ``key.sub=value`` overrides to a validated configuration, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedlt.config.explain import explain
from fedlt.config.paths import is_path, output_folder, with_paths
from fedlt.config.schema import Config, PluginConfig
from fedlt.config.yaml12 import dump, parse_value, read_mapping
from fedlt.errors import FedltError, shortened
from fedlt.loading import is_spec

__all__ = [
    "build_config",
    "config_hash",
    "differing_keys",
    "file_digests",
    "load_config",
    "parse_options",
    "path_digest",
    "to_yaml",
    "user_code",
]

_PLUGINS = {("strategy",), ("client",), ("client", "loss")}  # sections that may be a bare name
# What a result does not depend on.
_NEUTRAL = ("name", "output", "engine", "checkpoint", "diagnostics", "trackers", "seeds")


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
    """Apply ``overrides``, whose paths lie beside the shell, to ``tree``; return them by key."""
    given = {}
    for override in overrides:
        key, text = _split(override)
        given[key] = override
        value = parse_value(text, f"override {shortened(override)!r}")
        _assign(tree, key, with_paths(value, Path.cwd(), key))
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


def _paths_in(section: str, plugin: PluginConfig) -> dict[str, str]:
    """Return the hyperparameters that are places of data: those named ``path`` or ``..._path``."""
    flat = {f"{section}.{key}": json.loads(text) for key, text in _flatten(plugin.options)}
    return {
        k: value for k, value in flat.items() if is_path(k) and isinstance(value, str) and value
    }


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override and validate an experiment file.

    Paths are absolute in the result: those of the file lie beside it, those of overrides and
    ``output`` in the working directory (:mod:`fedlt.config.paths`).

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
    tree = with_paths(tree, path.absolute().parent)
    given = _apply(tree, overrides)
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


def _plugins(config: Config) -> dict[str, PluginConfig]:
    """Return the sections that name a class and its hyperparameters, by dotted key."""
    plugins: dict[str, PluginConfig] = {"strategy": config.strategy, "client": config.client}
    if config.client.loss is not None:
        plugins["client.loss"] = config.client.loss
    return plugins


def user_code(config: Config) -> dict[str, str]:
    """Return what a run executes beside fedlt: ``file.py:Name``, ``module:Name``, by dotted key."""
    named = {
        "data.dataset": config.data.dataset,
        "model.name": config.model.name,
        "engine.name": config.engine.name,
        **{f"{section}.name": plugin.name for section, plugin in _plugins(config).items()},
    }
    return {key: name for key, name in named.items() if is_spec(name)}


def file_digests(config: Config) -> dict[str, str]:
    """Return the SHA-256 of every file of the user's that a result depends on, by dotted key.

    These are a data set, backbone, strategy or client plugin named as ``file.py:Name``,
    ``partition.file``, and what hyperparameters named ``..._path`` point to: a file, or every file
    in a folder. What cannot be read has the digest ``"unreadable"``: what loads it says so.
    """
    code = {key: spec.rpartition(":")[0] for key, spec in user_code(config).items()}
    files = {k: file for k, file in code.items() if file.endswith(".py") and k != "engine.name"}
    if config.partition.file is not None:
        files["partition.file"] = config.partition.file
    for section, plugin in _plugins(config).items():
        files |= _paths_in(section, plugin)
    return {key: path_digest(Path(file)) for key, file in files.items()}


def path_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of every file in a folder; ``"unreadable"`` if so."""
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            text = "".join(f"{file.relative_to(path)} {path_digest(file)}\n" for file in files)
            return hashlib.sha256(text.encode()).hexdigest()
        if not path.is_file():  # a device, which never ends
            return "unreadable"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _identity(config: Config, digests: Mapping[str, str]) -> dict[str, str]:
    """Return everything that a result depends on: dotted key to JSON text."""
    tree = config.model_dump(mode="json")
    for name in _NEUTRAL:
        tree.pop(name)
    tree["data"].pop("root")
    flat = dict(_flatten(tree))
    for key, digest in digests.items():
        is_spec_of = key.endswith((".name", ".dataset"))
        name = str(json.loads(flat[key])).rpartition(":")[2] if is_spec_of else ""
        flat[key] = f"{name} {digest}"
    return flat


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, json.dumps(value, sort_keys=True)))
    return flat


def config_hash(config: Config, digests: Mapping[str, str] | None = None) -> str:
    """Return the SHA-256 (hex) of all that changes a result.

    Left out are ``name``, ``output``, ``engine``, ``checkpoint``, ``seeds`` and the place of the
    data. A user's file counts by its content, not by its path.

    Args:
        config: The configuration.
        digests: What ``file_digests`` returned earlier; None reads the files now.
    """
    identity = _identity(config, file_digests(config) if digests is None else digests)
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differing_keys(config: Config, other: Config, other_digests: Mapping[str, str]) -> list[str]:
    """Return the dotted keys that make the hash of ``config`` differ from that of ``other``."""
    mine, theirs = _identity(config, file_digests(config)), _identity(other, other_digests)
    return sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
