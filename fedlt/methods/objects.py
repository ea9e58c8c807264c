"""Python objects in a configuration: strategies, plugins and functions, as names and plain data.

    {"strategy": FedProx(mu=0.1)}   ->  {"strategy": {"name": "fedprox", "mu": 0.1}}
    {"strategy": Mine(mu=0.1)}      ->  {"strategy": {"name": "/home/me/mine.py:Mine", "mu": 0.1}}

A class or function of a notebook or script is written to a file of its own, see
``fedlt.config.session_code``. So a run never depends on an object that only one process has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedlt.config.loading import Table, check_packages
from fedlt.config.paths import SPECS
from fedlt.config.raised import is_outside
from fedlt.config.session_code import session_text
from fedlt.errors import FedltError, shortened
from fedlt.machine.durable import replace_synced

_TABLES = {"strategy": ("strategies", "STRATEGIES"), "client": ("clients", "CLIENTS")}
_SECTIONS = ("strategy", "client", "client.loss")  # a whole method may stand here


class PlainTree:
    """Content of an experiment as plain data, and the files that its names need.

    Args:
        content: The content: plain data, and objects where a name may stand.
        folder: The folder of the files of session code; made by :meth:`write`.

    Raises:
        FedltError: If a value can neither stand in a file nor be turned into a name.
    """

    def __init__(self, content: Mapping[str, Any], folder: Path) -> None:
        self._folder = folder
        self._texts: dict[Path, str] = {}
        self._new: list[Path] = []
        self.tree: dict[str, Any] = {key: self.plain(value, key) for key, value in content.items()}

    def plain(self, value: Any, key: str) -> Any:  # noqa: ANN401 (anything)
        """Return the value of a dotted key as plain data: objects become names."""
        if isinstance(value, Mapping):
            return {str(name): self.plain(item, f"{key}.{name}") for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item, key) for item in value]
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return self._named(value, key)

    def _named(self, value: Any, key: str) -> Any:  # noqa: ANN401 (anything)
        kind = type(value)
        if key in _SECTIONS and dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {"name": self._name(kind, key), **self._options(value, key)}
        if key in SPECS and callable(value) and hasattr(value, "__qualname__"):
            return self._name(value, key)
        what = f"a {kind.__module__}.{kind.__qualname__}"
        if key in ("model", "model.name"):
            raise FedltError(f"{key}: {what} is no name; give the class or function that makes it")
        raise FedltError(f"{key}: {what} is no value of an experiment; give text, numbers or lists")

    def _options(self, method: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 (a dataclass)
        """Return the hyperparameters of a method that differ from their defaults."""
        found = {}
        for one in dataclasses.fields(method):
            value, default = getattr(method, one.name), one.default
            if one.default_factory is not dataclasses.MISSING:
                default = one.default_factory()
            if one.init and (default is dataclasses.MISSING or value != default):
                found[one.name] = self.plain(value, f"{key}.{one.name}")
        return found

    def _name(self, thing: Any, key: str) -> str:  # noqa: ANN401 (a class or function)
        """Return the name of a class or function: built-in, ``file.py:Name`` or ``module:Name``."""
        module, name = thing.__module__, thing.__qualname__
        for package, table in (_TABLES[section] for section in _TABLES if key.startswith(section)):
            check_packages()
            known: Table[Any] = getattr(importlib.import_module(package), table)
            if built_in := known.name_of(thing):
                return built_in
        if "." in name or not name.isidentifier():
            place = "define it at the top of a file, a script or a notebook"
            raise FedltError(f"{key}: {shortened(name)} lies inside other code; {place}")
        if module == "__main__":
            return f"{self._written(thing, key)}:{name}"
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        if "." not in module and file.endswith(".py") and is_outside(file):
            return f"{Path(file).absolute()}:{name}"
        return f"{module}:{name}"

    def _written(self, thing: Any, key: str) -> Path:  # noqa: ANN401 (a class or function)
        text = session_text(thing, key)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = self._folder / f"{thing.__name__}_{digest}.py"
        self._texts[path] = text
        return path

    def write(self) -> None:
        """Write the files of session code that are not there yet."""
        for path, text in self._texts.items():
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_synced(path, text.encode())
                self._new.append(path)

    def remove(self) -> None:
        """Remove the files that :meth:`write` has written, for a run that cannot begin."""
        for path in self._new:
            path.unlink(missing_ok=True)
        if self._new and not any(self._folder.iterdir()):
            self._folder.rmdir()
