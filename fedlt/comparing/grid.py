"""``--set key=a,b,c``: all rows once for every value; each setting has a table of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlt.config.yaml12 import parse_value
from fedlt.errors import FedltError

MOST = 80  # characters of a folder's name
_OWN = {  # keys that --set cannot name, and the option to use instead
    "name": "name=...",
    "output": "output=...",
    "seed": "--seeds",
    "seeds": "--seeds",
    "strategy": "--strategies",
    "strategy.name": "--strategies",
    "client": "--clients",
    "client.name": "--clients",
}


@dataclass(frozen=True)
class Setting:
    """Setting of a grid: one value for each key that ``--set`` names."""

    values: Mapping[str, Any]  # dotted key -> value; {}: the file as it is

    def __str__(self) -> str:
        """Return the values as ``key=value`` words."""
        return ", ".join(f"{key}={value}" for key, value in self.values.items())

    def overrides_of(self, row: str) -> list[str]:
        """Return the values as ``key=value`` overrides, the same for every row."""
        return [f"{key}={json.dumps(value)}" for key, value in self.values.items()]

    @property
    def folder(self) -> str:
        """Folder of the setting's runs; "" without values."""
        return folder_name(self.values)


def folder_name(values: Mapping[str, Any]) -> str:
    """Return a folder name for values of dotted keys, such as ``local.lr=0.1,local.epochs=2``.

    Long names, and names with special characters, are shortened and end with a digest.
    """
    text = ",".join(f"{key}={value}" for key, value in values.items())
    plain = re.sub(r"[^A-Za-z0-9.,=+_-]+", "-", text)[:MOST]
    if plain == text:
        return text
    return f"{plain}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def row_folder(label: str) -> str:
    """Return the folder name of a row: the label in lower case, other characters as hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def read_values(text: str, option: str) -> tuple[str, list[Any]]:
    """Return the key and the values of ``key=a,b,c``, read as YAML.

    Raises:
        FedltError: If the text is not of that form.
    """
    key, equals, values = text.partition("=")
    key = key.strip()
    where = f"{option} {text!r}"
    if not equals or not values.strip() or not all(part.strip() for part in key.split(".")):
        raise FedltError(f"{where}: expected key=a,b,c, such as local.lr=0.1,0.3")
    found: list[Any] = parse_value(f"[{values}]", where)
    if any(value in found[:number] for number, value in enumerate(found)):
        raise FedltError(f"{where}: a value is given twice")
    return key, found


def make_settings(given: Sequence[str], overrides: Sequence[str] = ()) -> list[Setting]:
    """Return every combination of values given as ``key=a,b,c``; without any, one empty setting.

    Args:
        given: One text per key.
        overrides: ``key=value`` of the same command: a key may not be in both.

    Raises:
        FedltError: If a text is not of that form, or a key may not be set by ``--set``.
    """
    lists: dict[str, list[Any]] = {}
    fixed = {override.partition("=")[0].strip() for override in overrides}
    for text in given:
        key, values = read_values(text, "--set")
        if key in _OWN:
            raise FedltError(f"--set: {key} is no setting of a table; use {_OWN[key]}")
        if key in lists or key in fixed:
            raise FedltError(f"--set: {key} is given twice")
        lists[key] = values
    return [
        Setting(dict(zip(lists, combination, strict=True)))
        for combination in itertools.product(*lists.values())
    ]
