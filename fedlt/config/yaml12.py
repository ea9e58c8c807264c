"""YAML reader for experiment files: YAML 1.2 scalars, no duplicate keys, errors of one line.

PyYAML follows YAML 1.1, where ``1e-3`` is text, ``off`` is false, ``1:30`` is 90 and ``2024-01-01``
is a date. Here ``1e-3`` is a number, only true and false are booleans, and the others are text
(YAML 1.2 core schema, https://yaml.org/spec/1.2.2/#1032-tag-resolution).

A file may come from a stranger, so size, depth and number of values have limits that are checked
before any object is built. The values of an alias count each time that the alias is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from fedlt.errors import FedltError, shortened
from fedlt.machine.reading import read_text

MOST_BYTES = 1 << 20  # of a YAML file; the longest file of fedlt has a hundredth of that
MOST_VALUES = 20_000  # keys, values, lists and mappings, with the values of aliases
MOST_DEPTH = 50  # of nested lists and mappings
_MOST_INTEGER = 2**63 - 1  # largest whole number of the libraries below
_TAG = "tag:yaml.org,2002:"

# The parser of libyaml reads a megabyte in milliseconds; not every PyYAML is built with it.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # one of two classes
    """SafeLoader with the scalars of YAML 1.2, without duplicate keys and without other tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (filled below, as PyYAML wants it)
    yaml_constructors: dict[str | None, Any] = {  # noqa: RUF012 (likewise)
        None: yaml.SafeLoader.construct_undefined,
        f"{_TAG}seq": yaml.SafeLoader.construct_yaml_seq,
        f"{_TAG}map": yaml.SafeLoader.construct_yaml_map,
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node; refuse a key that is written twice or is not text."""
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(
                problem="expected a mapping (key: value)", problem_mark=node.start_mark
            )
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            name, problem = shortened(str(getattr(key, "value", "?"))), ""
            if key.tag != f"{_TAG}str":
                problem = f"key {name} is not text; quote it"
            elif key.value in seen:
                problem = f"key {name!r} is given twice"
            if problem:
                raise yaml.constructor.ConstructorError(
                    problem=problem, problem_mark=key.start_mark
                )
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which either YAML version would read as another type."""


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first
        )


def _construct_int(text: str) -> int:
    if len(text.lstrip("+-0")) > len(str(_MOST_INTEGER)):
        raise ValueError(f"a whole number of {len(text)} digits; at most {_MOST_INTEGER}")
    value = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if abs(value) > _MOST_INTEGER:
        raise ValueError(f"{text} is more than {_MOST_INTEGER}")
    return value


def _construct_scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    """Return the value of a scalar; an explicit tag must fit the text after it."""
    text, kind = str(loader.construct_scalar(node)), node.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if not re.fullmatch(_SCALARS[kind][0], text):
        raise yaml.constructor.ConstructorError(
            problem=f"{text[:40]!r} is no {kind}", problem_mark=node.start_mark
        )
    try:
        return _MAKERS[kind](text)
    except ValueError as error:
        raise yaml.constructor.ConstructorError(
            problem=str(error), problem_mark=node.start_mark
        ) from error


_MAKERS: dict[str, Callable[[str], object]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _construct_int,
    "float": lambda text: float(text.replace(".inf", "inf").replace(".nan", "nan")),
}
for _name in ("str", *_MAKERS):
    _Loader.add_constructor(_TAG + _name, _construct_scalar)


def _check_limits(text: str) -> None:
    """Raise for a text that is nested too deep, or has too many values with its aliases.

    Raises:
        ValueError: With the limit that is exceeded.
    """
    sizes: dict[str | None, int] = {}  # anchor -> number of values
    opened: list[tuple[str | None, int]] = []  # anchor, and number of values before
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in opened]:
                raise ValueError(f"nested too deeply: *{event.anchor} stands inside itself")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
            if len(opened) > MOST_DEPTH:
                raise ValueError(f"nested too deeply: more than {MOST_DEPTH} levels")
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values, with what its aliases stand for")


def _explain(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(str(problem).split())


def _parse(text: str, where: str) -> Any:  # noqa: ANN401 (whatever the text holds)
    try:
        _check_limits(text)
        return _copy(yaml.load(text, Loader=_Loader))
    except yaml.YAMLError as error:
        words = _explain(error)
        if "nesting depth" in words:
            words = f"nested too deeply: more than {MOST_DEPTH} levels"
        raise FedltError(f"{where}: not valid YAML: {words}") from error
    except UnicodeEncodeError as error:
        raise FedltError(f"{where}: not valid YAML: {error.reason}") from error
    except RecursionError as error:
        raise FedltError(f"{where}: nested too deeply") from error
    except ValueError as error:
        raise FedltError(f"{where}: not valid YAML: {error}") from error


def _copy(value: Any) -> Any:  # noqa: ANN401 (a recursion over plain data)
    """Return plain data without shared parts, so that an override never changes an alias.

    Raises:
        ValueError: If a key without a value looks like a key and its value.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if item is None and ":" in str(key):
                name, _, rest = shortened(str(key)).partition(":")
                raise ValueError(f"write '{name}: {rest}', with a space after the colon")
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def parse_value(text: str, where: str) -> Any:  # noqa: ANN401 (whatever the text holds)
    """Return the YAML value of ``text``: ``"1e-3"`` is 0.001, ``"[1, 2]"`` a list, ``""`` None.

    Args:
        text: The right-hand side of an override ``key=value``.
        where: The name of the text in the error line.

    Raises:
        FedltError: If the text is not YAML.
    """
    return _parse(text, where)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that the YAML file ``path`` holds.

    Raises:
        FedltError: If the file is missing, unreadable, empty, not YAML, or not a mapping.
    """
    text = read_text(path, MOST_BYTES)
    value = _parse(text, str(path))
    if value is None:
        raise FedltError(f"{path}: the file is empty; expected a mapping with name and rounds")
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise FedltError(f"{path}: holds a {kind}; expected a mapping, such as 'name: first-run'")
    return value


def dump(tree: dict[str, Any]) -> str:
    """Return ``tree`` as YAML text that `read_mapping` reads back to the same values."""
    return yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None
    )
