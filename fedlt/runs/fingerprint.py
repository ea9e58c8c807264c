"""Fingerprint of a run: everything that the result of the run depends on.

    settings    every key of the configuration that changes a result, the seed among them
    weights     the file or the run of `model.weights`
    files       the user's Python files with their imports, and data named by hyperparameters
    data        the arrays that the run trains and scores on
    partition   which client has which images
    results version of fedlt

A run directory keeps the fingerprint in ``fingerprint.json``, and each of its files names the run
by the short hash of the fingerprint. A command that trains computes the fingerprint anew and
compares the two; a command that only reads compares the recorded hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fedlt.config.identity import Digests, contents, file_digests, settings_of, weights_digests
from fedlt.machine.array_digests import array_digest
from fedlt.machine.digests import UNREADABLE
from fedlt.machine.maps import MappedRows

if TYPE_CHECKING:
    from fedlt.config import Config
    from fedlt.data import FederatedData
    from fedlt.data.dataset import Dataset

RESULTS_VERSION = 2  # raise with every change of a number that a run gives

# Fields of the data that follow from other fields, or that no number depends on.
_DERIVED = ("name", "class_names", "client_names", "split", "partition", "class_counts",
            "client_counts", "partition_notes", "strangers")  # fmt: skip
_WORDS = {  # field of the data -> words in messages
    "num_classes": "numbers of classes",
    "mean": "channel means",
    "std": "channel deviations",
    "train_images": "training images",
    "train_labels": "training labels",
    "eval_images": "{part} images",
    "eval_labels": "{part} labels",
    "eval_clients": "clients of the {part} images",
    "pool_indices": "places of the training images in the data set",
}
_PARTS = {"final": "test", "tune": "validation"}


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a run: values and digests of all that the result depends on, by name."""

    results_version: int
    settings: Mapping[str, str]  # dotted key -> value as JSON
    files: Mapping[str, Mapping[str, str]]  # dotted key -> file -> digest
    data: Mapping[str, str] = field(default_factory=dict)  # words -> digest; {}: not looked at
    weights: Mapping[str, str] = field(default_factory=dict)  # key -> digest
    partition: str = ""  # hash; "": not looked at

    @property
    def run(self) -> str:
        """Short hash of the fingerprint, 16 hex digits, by which a run's files name the run."""
        content = {**asdict(self), "files": contents(self.files)}
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``fingerprint.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the fingerprint of a dictionary made by :meth:`to_json`.

        Raises:
            TypeError: If a key is missing, or a value has another type.
        """
        kept: dict[str, Any] = {one.name: content.get(one.name) for one in fields(cls)}
        whole = isinstance(kept["results_version"], int) and isinstance(kept["partition"], str)
        named = (kept["settings"], kept["files"], kept["data"], kept["weights"])
        if not whole or not all(isinstance(one, dict) for one in named):
            raise TypeError("not a fingerprint")
        return cls(**kept)

    def differences(self, other: Fingerprint) -> list[str]:
        """Return in words the differences of the stored fingerprint ``other`` from this one."""
        words = []
        if self.results_version != other.results_version:
            made = f"made by results version {other.results_version}"
            words.append(f"{made}, this is {self.results_version}")
        weights = {
            name: self._of_weights(name, other) for name in _unequal(self.weights, other.weights)
        }
        keys = [key for key in _unequal(self.settings, other.settings) if key not in weights]
        words += [f"another {', '.join(keys)}"] if keys else []
        words += [f"{name} has changed" for name in _changed(self.files, other.files)]
        words += weights.values()
        words += [f"the {name} differ" for name in _unequal(self.data, other.data)]
        words += ["the partition differs"] if self.partition != other.partition else []
        return words

    def _of_weights(self, name: str, other: Fingerprint) -> str:
        """Return in words what has become of the weights of a key."""
        if name not in self.weights:
            return f"{name} is no longer given"
        if name not in other.weights:
            return f"{name} is given now"
        return f"{name} {'cannot be read' if self.weights[name] == UNREADABLE else 'has changed'}"


def _unequal(mine: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    names = {**mine, **theirs}
    return sorted(name for name in names if mine.get(name) != theirs.get(name))


def _changed(
    mine: Mapping[str, Mapping[str, str]], theirs: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Return the names of files whose contents differ; renaming a file does not count."""
    known, found = contents(mine), contents(theirs)
    names: dict[str, None] = {}
    for key in _unequal(known, found):
        names |= dict.fromkeys(_unequal(mine.get(key, {}), theirs.get(key, {})))
    return [*names]


def declared(config: Config) -> Fingerprint:
    """Return the part of a fingerprint that is known before the data are loaded."""
    digests: Digests = file_digests(config)
    weights = weights_digests(config)
    return Fingerprint(RESULTS_VERSION, settings_of(config), digests, weights=weights)


def fingerprint(config: Config, data: FederatedData) -> Fingerprint:
    """Return the fingerprint of a run.

    Args:
        config: The run; its ``seeds`` must be None.
        data: The data that the run trains and scores on.
    """
    known = declared(config)
    return Fingerprint(
        known.results_version,
        known.settings,
        known.files,
        data=_data_digests(data),
        weights=known.weights,
        partition=data.partition.hash(),
    )


def fingerprints(configs: Iterable[Config]) -> list[Fingerprint]:
    """Return the fingerprints of runs, from their current data; each data set is loaded once."""
    from fedlt.data import prepare_data
    from fedlt.data.datasets import load_dataset

    found: list[Fingerprint] = []
    loaded: dict[str, Dataset] = {}  # the last data set
    for config in configs:
        data = config.data
        key = data.model_dump_json(include={"dataset", "root", "options"})
        if key not in loaded:
            source = load_dataset(data.dataset, root=data.root, options=data.options)
            loaded = {key: source}
        prepared = prepare_data(data, config.partition, seed=config.seed, source=loaded[key])
        found.append(fingerprint(config, prepared))
    return found


def _data_digests(data: FederatedData) -> dict[str, str]:
    """Return the digests of the data fields that a result depends on, by field in words."""
    found = {}
    for one in fields(data):
        value = getattr(data, one.name)
        if one.name not in _DERIVED and value is not None:
            words = _WORDS.get(one.name, one.name.replace("_", " "))
            is_array = isinstance(value, np.ndarray | MappedRows)
            digest = array_digest(value) if is_array else json.dumps(value)
            found[words.format(part=_PARTS.get(data.split, data.split))] = digest
    return found
