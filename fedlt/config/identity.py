"""The keys of a configuration, and the files of the user, that a result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.config.import_closure import closure, module_files
from fedlt.config.loading import installed_points, is_spec
from fedlt.config.paths import data_paths, is_path
from fedlt.machine.digests import UNREADABLE, file_digest, path_digest

if TYPE_CHECKING:
    from fedlt.config.schema import Config, PluginConfig

Digests = dict[str, dict[str, str]]  # dotted key -> name of a file -> its digest

# Keys that a result does not depend on. Every other key counts, also a new key: a new key counts
# where its value is not the default, so that runs made before the key existed keep their hash.
NEUTRAL = (
    "name", "output", "engine", "checkpoint", "deployment", "diagnostics", "trackers", "seeds",
    "data.root", "report",
)  # fmt: skip

# Keys that count at their default, too: they are as old as the fingerprint.
_OLD = (
    "seed", "rng_salt", "rounds", "clients_per_round", "batchnorm",
    "data.dataset", "data.imbalance_factor", "data.profile", "data.split", "data.class_order",
    "data.options", "partition.scheme", "partition.variant", "partition.dirichlet_alpha",
    "partition.num_clients", "partition.min_samples", "partition.shards_per_client",
    "partition.file", "model.name", "model.width", "model.norm", "strategy.name", "client.name",
    "local.epochs", "local.batch_size", "local.optimizer", "local.lr", "local.head_lr",
    "local.momentum", "local.weight_decay", "local.sam_rho", "local.augment", "local.precision",
    "local.schedule.warmup", "local.schedule.drops", "local.schedule.factor",
    "prior.use", "prior.gamma", "prior.source",
    "evaluate.every", "evaluate.personal_every", "evaluate.shots", "evaluate.shot_classes",
    "evaluate.local_test", "evaluate.clients", "evaluate.selected_round", "evaluate.batch_size",
    "personal.refresh.scope", "personal.refresh.epochs",
    "faults.lost.rate", "faults.lost.aim", "faults.straggler.deadline", "faults.straggler.spread",
    "faults.straggler.jitter", "faults.straggler.action", "faults.late.share",
    "faults.late.first", "faults.late.last", "faults.corrupt.share", "faults.corrupt.rate",
    "faults.corrupt.kind", "faults.corrupt.factor", "faults.stale.rate", "faults.stale.rounds",
    "faults.detect.max_norm", "faults.detect.max_ratio",
)  # fmt: skip


def settings_of(config: Config) -> dict[str, str]:
    """Return the values, as JSON, of all dotted keys that a result depends on.

    A user's file counts by its content, not by its path: see :func:`file_digests`. So only the name
    of ``file.py:Name`` is kept, and paths of data are dropped. Files read by a data set's function
    count by the arrays that the function returns.
    """
    tree = flatten(config.model_dump(mode="json"))
    flat = {key: json.dumps(value, sort_keys=True) for key, value in tree.items()}
    for key in [*flat]:
        if any(key == name or key.startswith(f"{name}.") for name in NEUTRAL):
            del flat[key]
    for key, value in _new_defaults(config).items():
        if flat.get(key) == value:
            del flat[key]
    if flat.pop("flower.mods", None):
        flat |= {f"flower.mods.{n}": json.dumps(m) for n, m in enumerate(config.flower.mods)}
    for key, source in _specs(config).items():
        if source.rpartition(":")[0].endswith(".py"):
            flat[key] = json.dumps(source.rpartition(":")[2])
    for key in {**_places(config), **_data_places(config), **weights_digests(config)}:
        flat[key] = json.dumps("by content")
    return flat


def _new_defaults(config: Config) -> dict[str, str]:
    """Return the defaults, as JSON, of the keys that are younger than the fingerprint."""
    tree = flatten(type(config)(name=config.name, rounds=1).model_dump(mode="json"))
    return {key: json.dumps(tree[key], sort_keys=True) for key in tree if key not in _OLD}


def file_digests(config: Config) -> Digests:
    """Return the digests of all user files that a result depends on, by dotted key.

    User files are the Python files of a data set, backbone, strategy or client plugin with all
    imports from the user's folders, ``partition.file``, and the files or folders of hyperparameters
    named ``..._path``. An unreadable file has the digest ``"unreadable"``; loading the file later
    raises the error.
    """
    found = code_digests(config)
    for key, place in _places(config).items():
        found[key] = {Path(place).name: path_digest(Path(place))}
    return found


def weights_digests(config: Config) -> dict[str, str]:
    """Return the digest of ``model.weights`` by its key: of a file, or a run's short hash.

    {} without weights. What cannot be read has the digest ``"unreadable"``.
    """
    if config.model.weights is None:
        return {}
    path = Path(config.model.weights)
    return {"model.weights": _run_hash(path) if path.is_dir() else file_digest(path)}


def _run_hash(folder: Path) -> str:
    try:
        return str(json.loads((folder / "fingerprint.json").read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, LookupError, TypeError):
        return UNREADABLE


def code_digests(config: Config) -> Digests:
    """Return the digests of :func:`file_digests` that belong to Python files."""
    found: Digests = {}
    for key, source in _specs(config).items():
        module = source.rpartition(":")[0]
        files = [Path(module)] if module.endswith(".py") else module_files(module)[::-1]
        if files:
            found[key] = {name: file_digest(path) for name, path in closure(*files).items()}
    return found


def contents(digests: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return digests without file names, since a result does not depend on file names."""
    return {key: sorted(files.values()) for key, files in digests.items()}


def _plugins(config: Config) -> dict[str, PluginConfig]:
    plugins: dict[str, PluginConfig] = {"strategy": config.strategy, "client": config.client}
    if config.client.loss is not None:
        plugins["client.loss"] = config.client.loss
    return plugins


def user_code(config: Config) -> dict[str, str]:
    """Return the user code of a run, as ``file.py:Name`` or ``module:Name``, by dotted key."""
    named = {
        "data.dataset": config.data.dataset,
        "partition.scheme": config.partition.scheme,
        "model.name": config.model.name,
        "engine.name": config.engine.name,
        **{f"{section}.name": plugin.name for section, plugin in _plugins(config).items()},
        **{f"flower.mods.{place}": name for place, name in enumerate(config.flower.mods)},
    }
    return {key: name for key, name in named.items() if is_spec(name)}


def _specs(config: Config) -> dict[str, str]:
    """Return the code that a result depends on by dotted key, also entry points of packages."""
    found = {key: name for key, name in user_code(config).items() if key != "engine.name"}
    for section, plugin in _plugins(config).items():
        group = "fedlt.strategies" if section == "strategy" else "fedlt.clients"
        if not is_spec(plugin.name):
            named = (p.value for p in installed_points(group) if p.name == plugin.name)
            found |= {f"{section}.name": value for value in named}
    return found


def _places(config: Config) -> dict[str, str]:
    """Return the paths of data that count by content, by dotted key."""
    file = config.partition.file
    found = {} if file is None else {"partition.file": file}
    found |= _paths("model.options", config.model.options)
    for section, plugin in _plugins(config).items():
        found |= _paths(section, plugin.options)
    return found


def _data_places(config: Config) -> dict[str, str]:
    """Return the path arguments of the functions that make data and partition, by dotted key."""
    found = _paths("data.options", config.data.options)
    found |= _paths("partition.options", config.partition.options)
    for key in data_paths(config.data.dataset):
        text = config.data.options.get(key.rpartition(".")[2])
        found |= {key: text} if isinstance(text, str) and text else {}
    return found


def _paths(section: str, options: Mapping[str, Any]) -> dict[str, str]:
    flat = flatten(options, f"{section}.")
    return {k: text for k, text in flat.items() if is_path(k) and isinstance(text, str) and text}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of ``tree`` by dotted key; an empty section stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        is_section = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return flat


def config_hash(config: Config) -> str:
    """Return the SHA-256 (hex) of the part of a fingerprint that is known before data are loaded.

    The digest covers the settings, the contents of user files, and the paths of a data set's files.
    """
    found: dict[str, object] = {
        "settings": settings_of(config),
        "files": contents(file_digests(config)),
    }
    weights = weights_digests(config)
    found |= {"weights": weights} if weights else {}
    text = json.dumps({**found, "data": _data_places(config)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
