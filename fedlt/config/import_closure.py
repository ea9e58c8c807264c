"""A user's Python file and its imports from the user's own folders, found by reading the text.

No code is executed. The search follows ``import`` statements anywhere in the file, and
``import_module`` and ``__import__`` with a literal name. Python itself, installed packages and
fedlt are left out. A module whose name is computed while the file runs is not found.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]
_OWN = ("fedlt", "strategies", "clients")
_IMPORTERS = ("import_module", "__import__")


def closure(file: Path, *more: Path) -> dict[str, Path]:
    """Return the file and all user files that the file imports, by path relative to its folder.

    Args:
        file: A Python file; an unreadable file is returned too.
        more: Further files that run with the file, such as the files of :func:`module_files`.
    """
    folder = file.absolute().parent
    queue = [path.absolute() for path in (file, *more)]
    found = dict.fromkeys(queue)
    while queue:
        new = [path for path in _imported(queue.pop()) if path not in found]
        found |= dict.fromkeys(new)
        queue += new
    return {os.path.relpath(path, folder): path for path in sorted(found)}


def module_files(module: str) -> list[Path]:
    """Return the files of the packages of ``package.module``, then the file of the module.

    No module is imported. The list is empty if the module is not in a user's folder.
    """
    root = _root(module.partition(".")[0])
    return [] if root is None else _resolved(root, module.split("."))


def _imported(path: Path) -> Iterator[Path]:
    """Yield the user's files that a file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for level, module, names in _statements(tree):
        base = path.parent
        if level:
            for _ in range(level - 1):
                base = base.parent
            yield from _files(base, module, names)
            continue
        own = _files(base, module, names)
        root = None if own else _root(module.partition(".")[0])
        yield from own if root is None else _files(root, module, names)


def _statements(tree: ast.AST) -> Iterator[tuple[int, str, list[str]]]:
    """Yield level, module and imported names of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = node.args[0]
            if name in _IMPORTERS and isinstance(given, ast.Constant):
                yield 0, str(given.value), []


def _files(base: Path, module: str, names: list[str]) -> list[Path]:
    """Return the files in the folder ``base`` that an import runs."""
    parts = [part for part in module.split(".") if part]
    found = _resolved(base, parts)
    for name in names:  # a name may be a module of the package
        found += [file for file in _resolved(base, [*parts, name]) if file not in found]
    return found


def _resolved(base: Path, parts: list[str]) -> list[Path]:
    """Return the ``__init__`` files on the way to a module, and its own file."""
    found, folder = [], base
    for number, part in enumerate(parts):
        package, module = folder / part / "__init__.py", folder / f"{part}.py"
        if package.is_file():
            found.append(package)
        elif module.is_file():
            found.append(module)
            break
        elif not (folder / part).is_dir() or number == len(parts) - 1:
            break
        folder /= part
    return [file for file in found if not _is_foreign(file)]


def _root(top: str) -> Path | None:
    """Return the folder that a top-level module of the user's is imported from."""
    if not top or top in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or [])
    origin = Path(places[0]) if places else Path(spec.origin or "/")
    return None if _is_foreign(origin / "x" if places else origin) else origin.parent


@cache
def _installed() -> tuple[Path, ...]:
    """Return the folders of Python and of installed packages."""
    paths = sysconfig.get_paths()
    named = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    named += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(Path(one).resolve() for one in named)


def _is_foreign(file: Path) -> bool:
    """Return True if a file belongs to Python, to an installed package or to fedlt."""
    path = file.resolve()
    if any(path.is_relative_to(_HOME / name) for name in _OWN):
        return True
    return any(path.is_relative_to(folder) for folder in _installed())
