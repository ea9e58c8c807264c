"""Load a user's class or function from ``path/to/file.py:Name`` or ``package.module:Name``."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from fedlt.config.raised import users_code
from fedlt.errors import FedltError, nearest, shortened

T = TypeVar("T")
_USER_PREFIX = "fedlt_user_"
LIBRARIES = ("timm", "torchvision")  # whose networks a file may name
_MANY = 40  # names of a module that an error line lists
Rule = Callable[[str, str], None]
_rules: list[Rule] = []  # of the running command; the last rule is in force


class Table(Mapping[str, T]):
    """Table of objects by name, given as ``package.module:Name`` and imported at first access."""

    def __init__(self, specs: Mapping[str, str]) -> None:
        self._specs = dict(specs)

    def __getitem__(self, name: str) -> T:
        module, _, attribute = self._specs[name].partition(":")
        found: T = getattr(importlib.import_module(module), attribute)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def name_of(self, thing: Any) -> str | None:  # noqa: ANN401 (a class or function)
        """Return the name of an object of the table; None if the object is not of the table."""
        spec = f"{thing.__module__}:{thing.__qualname__}"
        return next((name for name, known in self._specs.items() if known == spec), None)

    def attribute_of(self, package: str) -> Callable[[str], Any]:
        """Return a module's ``__getattr__`` that looks up the table's objects by Python name.

        Args:
            package: The name of the module, for the error.
        """
        names = {spec.partition(":")[2]: name for name, spec in self._specs.items()}

        def find(attribute: str) -> Any:  # noqa: ANN401 (a class of the table)
            if attribute in names:
                return self[names[attribute]]
            raise AttributeError(f"module {package!r} has no attribute {attribute!r}")

        return find


@functools.cache  # a search through every installed package; a run asks twelve times
def installed_points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group in all installed packages, read once per process."""
    return tuple(entry_points(group=group))


def is_spec(name: str) -> bool:
    """Return True if ``name`` is ``file.py:Name`` or ``module:Name``, not a built-in name.

    A network of a library, such as ``timm:resnet18``, counts as built in.
    """
    return ":" in name and name.partition(":")[0] not in LIBRARIES


def check_spec(name: str, where: str) -> None:
    """Raise if the file of ``file.py:Name`` is missing; nothing is executed."""
    source = name.rpartition(":")[0]
    if source.endswith(".py") and not Path(source).is_file():
        raise FedltError(f"{where}: no file {source!r}")


def absolute_spec(name: str) -> str:
    """Return ``name`` with the file part, if it has one, as an absolute path."""
    source, _, attribute = name.rpartition(":")
    return f"{Path(source).absolute()}:{attribute}" if source.endswith(".py") else name


def _import_file(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        raise FedltError(f"{where}: no file {str(path)!r}")
    with users_code(f"{where}: {path.name} fails on import"):
        source = path.read_bytes()
    # The content is part of the name: a file that was edited meanwhile is another module.
    digest = hashlib.blake2b(str(path.absolute()).encode() + b"\0" + source, digest_size=6)
    name = f"{_USER_PREFIX}{path.stem}_{digest.hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        raise FedltError(f"{where}: {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with users_code(f"{where}: {path.name} fails on import"):
            # Python's cache is bypassed: the cache misses an edit of a file within a second.
            exec(spec.loader.source_to_code(source, spec.loader.path), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def user_modules() -> list[ModuleType]:
    """Return the modules loaded from user files; their classes must be pickled by value."""
    return [module for name, module in sys.modules.items() if name.startswith(_USER_PREFIX)]


def import_paths() -> list[str]:
    """Return the absolute folders from which this process imports."""
    return [str(Path(entry).absolute()) for entry in sys.path]


def add_import_paths(paths: Sequence[str]) -> list[str]:
    """Append folders to the import path, at the end, so that they hide no module of fedlt.

    Returns:
        The folders of ``paths`` that are new.
    """
    known = set(import_paths())
    new = [path for path in paths if path not in known]
    sys.path.extend(new)
    return new


def check_packages() -> None:
    """Ensure that ``strategies`` and ``clients`` are the packages of this repository.

    The two names are generic: a folder of that name in the working directory may come first on the
    import path. Then the packages of the repository are imported past that folder.

    Raises:
        FedltError: If another package of that name was imported already.
    """
    home = Path(__file__).resolve().parents[2]
    for name in ("strategies", "clients"):
        origin, folders = _origin(name)
        if name not in sys.modules and (origin is None or not _lies_in(home, origin)):
            _import_from(home, name)
            origin, folders = _origin(name)
        if origin is None or not _lies_in(home, origin):
            where = origin or next(iter(folders), "nowhere")
            raise FedltError(
                f"import: package {name!r} comes from {where!r}, not from {str(home)!r}: "
                "run from another folder, or rename that one"
            )


def _lies_in(home: Path, origin: str) -> bool:
    return Path(origin).resolve().parent.parent == home


def _import_from(home: Path, name: str) -> None:
    """Import a top-level package from the folder ``home``, ignoring the rest of the path."""
    spec = PathFinder.find_spec(name, [str(home)])
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def load_object(spec: str, where: str) -> Any:  # noqa: ANN401 (any class or function of a user)
    """Return the object that ``spec`` names.

    Args:
        spec: ``path/to/file.py:Name`` or ``package.module:Name``.
        where: The configuration key, for the error line.

    Raises:
        FedltError: If the file, the module or the name cannot be loaded.
    """
    source, _, attribute = spec.rpartition(":")
    if source.endswith(".py"):
        module = _import_file(Path(source), where)
    else:
        module = _import_module(source, where)
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        known = nearest(attribute, public) if len(public) <= _MANY else ""
        raise FedltError(f"{where}: {source!r} has no {shortened(attribute)!r}{known}")
    return getattr(module, attribute)


def _import_module(name: str, where: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise FedltError(
            f"{where}: {shortened(name)!r} is neither a file.py nor a package.module; "
            "write file.py:Name or package.module:Name"
        )
    try:
        with users_code(f"{where}: {name!r} fails on import"):
            return importlib.import_module(name)
    except FedltError as error:
        if isinstance(error.__cause__, ImportError):
            reason = f"{where}: cannot import {name!r}: {error.__cause__}"
            raise FedltError(reason) from error.__cause__
        raise


def announce(spec: str, where: str) -> None:
    """Tell the execution rule that the code of ``spec`` runs next; the rule may refuse."""
    if _rules:
        _rules[-1](spec, where)


def load_users_object(spec: str, where: str) -> Any:  # noqa: ANN401 (any class or function of a user)
    """Return the user object that ``spec`` names, after :func:`announce`.

    Args:
        spec: As for :func:`load_object`.
        where: The configuration key.

    Raises:
        FedltError: If the execution rule refuses, or the object cannot be loaded.
    """
    announce(spec, where)
    return load_object(spec, where)


@contextmanager
def execution_rule(rule: Rule) -> Iterator[None]:
    """Ask ``rule`` before user code is executed; without a rule all user code is executed.

    Args:
        rule: Gets ``file.py:Name`` or ``package.module:Name`` and the configuration key; tells the
            user, or raises.
    """
    _rules.append(rule)
    try:
        yield
    finally:
        _rules.pop()


def _origin(name: str) -> tuple[str | None, list[str]]:
    """Return file and folders from which a top-level package is, or would be, imported."""
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None), list(getattr(module, "__path__", []))
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None, []
    return spec.origin, list(spec.submodule_search_locations or [])
