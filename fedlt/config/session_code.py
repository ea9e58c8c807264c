"""Classes and functions of a notebook or a script, as text of a file that can be loaded again.

A run has to be found, resumed and sent to other processes, so its method must lie in a file. The
text written here holds the class and all that the class needs of the session, and nothing else:
imports, plain constants, and other classes and functions, each from its own source. The text is the
same as long as these are the same, so the fingerprint of a run changes with them only.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import symtable
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from fedlt.errors import FedltError

_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, type(None))


def session_text(thing: Any, where: str) -> str:  # noqa: ANN401 (a class or function)
    """Return Python text that defines a class or function of the session ``__main__``.

    Args:
        thing: The class or function.
        where: The configuration key, for the error line.

    Raises:
        FedltError: If the source is not known, or it uses a value that no text can hold.
    """
    writer = _Writer(where, thing.__name__, vars(sys.modules[thing.__module__]))
    writer.define(thing)
    parts = ["from __future__ import annotations", *sorted(writer.imports), *writer.bodies]
    return "\n\n".join(parts) + "\n"


class _Writer:
    """Collects the definitions that a class needs, those needed by others first."""

    def __init__(self, where: str, name: str, session: Mapping[str, Any]) -> None:
        self.where, self.name, self.session = where, name, session
        self.imports: dict[str, None] = {}
        self.bodies: list[str] = []
        self._done: set[str] = set()

    def define(self, thing: Any) -> None:  # noqa: ANN401 (a class or function)
        """Add the source of a class or function of the session, after all that it uses."""
        self._done.add(thing.__name__)
        text = _source(thing)
        if text is None:
            self._refuse(f"the source of {thing.__name__!r} is not known; put it into a file")
        for name in _free_names(text):
            if name not in self._done and name in self.session:
                self._done.add(name)
                self._need(name, self.session[name], text)
        self.bodies.append(text)

    def _need(self, name: str, value: Any, text: str) -> None:  # noqa: ANN401 (anything)
        line = _import_line(name, value)
        if line is not None:
            self.imports[line] = None
            if isinstance(value, ModuleType):
                self.imports |= dict.fromkeys(_submodules(name, value, text))
        elif isinstance(value, (type, FunctionType)):
            self.define(value)
            if value.__name__ != name:
                self.bodies.append(f"{name} = {value.__name__}")
        elif _is_plain(value):
            self.bodies.append(f"{name} = {value!r}")
        else:
            kind = type(value).__name__
            self._refuse(f"it uses {name!r}, a {kind}; read it from a file, or make it a field")

    def _refuse(self, reason: str) -> NoReturn:
        raise FedltError(f"{self.where}: {self.name} cannot be kept for a run: {reason}")


def _is_plain(value: Any) -> bool:  # noqa: ANN401 (anything)
    if not isinstance(value, _PLAIN):
        return False
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _import_line(name: str, value: Any) -> str | None:  # noqa: ANN401 (anything)
    """Return the import that gives a module of the session its name; None if there is none."""
    if isinstance(value, ModuleType):
        own = value.__name__
        return f"import {own}" if own == name else f"import {own} as {name}"
    if isinstance(value, _PLAIN):
        return None
    homeless = [sys.modules["__main__"], builtins]  # another process cannot import from these
    for module, found in _places(name, value):
        owner = sys.modules.get(module, builtins)
        if vars(owner).get(found) is value and owner not in homeless:
            return f"from {module} import {found}" + (f" as {name}" if found != name else "")
    return None


def _places(name: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 (anything)
    """Yield modules that may hold a value, with its name there: its own module first."""
    yield str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", name))
    yield from _session_imports(name)
    modules = [(key, one) for key, one in sorted(sys.modules.items()) if type(one) is ModuleType]
    yield from ((key, name) for key, one in modules if vars(one).get(name) is value)
    for key, one in modules:
        yield from ((key, found) for found, held in [*vars(one).items()] if held is value)


def _session_imports(name: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of the session's own ``from module import name`` statements."""
    home = getattr(sys.modules["__main__"], "__file__", None)
    for file in [*([home] if home else []), *_cells()]:
        tree = _parsed(file)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for one in node.names:
                    if (one.asname or one.name) == name:
                        yield node.module, one.name


def _submodules(name: str, module: ModuleType, text: str) -> Iterator[str]:
    """Yield imports of the submodules that a text reads as attributes, such as ``os.path``."""
    for node in ast.walk(ast.parse(text)):
        chain: list[str] = []
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id == name and name == module.__name__:
            for end in range(1, len(chain) + 1):
                full = ".".join([name, *chain[:end]])
                if full in sys.modules:
                    yield f"import {full}"


def _source(thing: Any) -> str | None:  # noqa: ANN401 (a class or function)
    """Return the source of a top-level class or function with its decorators; None: not known."""
    for file in _files(thing):
        tree = _parsed(file)
        kinds = ast.ClassDef if isinstance(thing, type) else ast.FunctionDef
        body = tree.body if tree else []
        found = [n for n in body if isinstance(n, kinds) and n.name == thing.__name__]
        if found:
            node = found[-1]
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            lines = linecache.getlines(file)[first - 1 : node.end_lineno]
            return "".join(lines).rstrip("\n")
    return None


def _parsed(file: str) -> ast.Module | None:
    """Return the syntax tree of a file or cell; None if there is none."""
    linecache.checkcache(file)  # a script may have been edited
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None


def _cells() -> list[str]:
    """Return the names of a notebook's cells in the cache of source lines, the newest first."""
    names = [*linecache.cache]
    return [one for one in reversed(names) if "ipykernel" in one or "ipython-input" in one]


def _files(thing: Any) -> Iterable[str]:  # noqa: ANN401 (a class or function)
    """Return the files, or cells of a notebook, that may define a class or function."""
    members = [thing, *vars(thing).values()] if isinstance(thing, type) else [thing]
    functions = [inspect.unwrap(one) for one in members if isinstance(one, FunctionType)]
    files = [one.__code__.co_filename for one in functions]
    home = getattr(sys.modules.get(thing.__module__), "__file__", None)
    files += [home] if home else []
    return dict.fromkeys([*files, *_cells()])


def _free_names(text: str) -> list[str]:
    """Return the names that a definition reads from its module, in alphabetical order."""
    found = set()
    tables = [symtable.symtable(text, "session", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        at_top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (at_top or symbol.is_global()):
                found.add(symbol.get_name())
    for node in ast.walk(ast.parse(text)):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(hint, ast.AST):
                found |= {one.id for one in ast.walk(hint) if isinstance(one, ast.Name)}
    return sorted(name for name in found if not hasattr(builtins, name))
