"""``fedlt new``: write a new method's class, its test and an experiment file."""

from __future__ import annotations

import ast
import keyword
import re
import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fedlt.cli.destinations import write_new
from fedlt.cli.screen import screen
from fedlt.errors import FedltError

_TEMPLATES = Path(__file__).parent / "templates"
_PATTERNS = ("{}.py", "test_{}.py", "{}.yaml")


class Made(StrEnum):
    """Kind of method to make."""

    STRATEGY = "strategy"
    CLIENT = "client"


def new(
    what: Annotated[Made, typer.Argument(help="A strategy, or a client plugin.")],
    name: Annotated[str, typer.Argument(help="Names the files; a Python identifier.")],
    folder: Annotated[
        Path, typer.Option("--folder", metavar="PATH", help="Where to write; here by default.")
    ] = Path(),
) -> None:
    """Write NAME.py, test_NAME.py and NAME.yaml, which run as they are.

    Nothing is overwritten.
    """
    texts = _texts(what, name)
    paths = {folder / file: text for file, text in texts.items()}
    write_new({path: text.encode() for path, text in paths.items()})
    script, test, file = paths
    following = [
        f"fedlt run {file}", f"pytest {test}", f"fedlt check {script}:{_class_name(name)}",
    ]  # fmt: skip
    screen().tell(*paths, f"next: {'; '.join(following)}")
    screen().document({"files": list(paths), "next": following})


def _texts(what: Made, name: str) -> dict[str, str]:
    """Return the text of every file by file name."""
    old = f"new_{what.value}"
    _check_name(name, (_TEMPLATES / f"{old}.py").read_text(encoding="utf-8"))
    texts = {}
    for pattern in _PATTERNS:
        text = (_TEMPLATES / pattern.format(old)).read_text(encoding="utf-8")
        text = text.replace(_class_name(old), _class_name(name))
        texts[pattern.format(name)] = re.sub(rf"\b(test_)?{old}\b", rf"\g<1>{name}", text)
    return texts


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _check_name(name: str, template: str) -> None:
    """Raise unless files and a class may have this name.

    Raises:
        FedltError: If the name is no identifier, or hides a module or an imported name.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        raise FedltError(f"NAME: {name!r} is no name of a Python module, such as my_method")
    imported = {
        alias.name
        for node in ast.walk(ast.parse(template))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    if keyword.iskeyword(_class_name(name)) or _class_name(name) in imported:
        raise FedltError(f"NAME: {name!r} makes a class {_class_name(name)}, which is taken")
    taken = name in sys.stdlib_module_names or name.startswith("test_") or name == "conftest"
    if taken or _is_installed(name):
        raise FedltError(f"NAME: {name!r} is the name of another module, which the file would hide")


def _is_installed(name: str) -> bool:
    """Return True if a module of this name exists outside the working directory."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    return any(p is not None and Path.cwd() not in Path(p).absolute().parents for p in places)
