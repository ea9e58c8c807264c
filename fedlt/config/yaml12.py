"""Read YAML as a researcher means it: YAML 1.2 scalars, no duplicate keys, errors of one line.

PyYAML follows YAML 1.1, where ``1e-3`` is text, ``off`` is false, ``1:30`` is 90 and ``2024-01-01``
is a date. Here ``1e-3`` is a number, only true and false are booleans, and the others are text
(YAML 1.2 core schema, https://yaml.org/spec/1.2.2/#1032-tag-resolution).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from fedlt.errors import FedltError

__all__ = ["dump", "parse_value", "read_mapping"]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (filled below, as PyYAML wants it)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping; refuse a key that is written twice or is not text."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    problem=f"key {getattr(key, 'value', '?')!s} is not text; quote it",
                    problem_mark=key.start_mark,
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which either YAML version would read as something else."""


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


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _explain(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(str(problem).split())


def _parse(text: str, where: str) -> Any:  # noqa: ANN401 (whatever the text holds)
    try:
        value = yaml.load(text, Loader=_Loader)
        return _copy(value)
    except yaml.YAMLError as error:
        raise FedltError(f"{where}: not valid YAML: {_explain(error)}") from error
    except RecursionError as error:
        raise FedltError(f"{where}: nested too deeply") from error
    except ValueError as error:
        raise FedltError(f"{where}: not valid YAML: {error}") from error


def _copy(value: Any) -> Any:  # noqa: ANN401 (a recursion over plain data)
    """Return plain data without shared parts, so that an override of one leaves its alias alone.

    Raises:
        ValueError: If a key without a value looks like a key and its value.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if item is None and ":" in str(key):
                name, _, rest = str(key).partition(":")
                raise ValueError(f"write '{name}: {rest}', with a space after the colon")
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def parse_value(text: str, where: str) -> Any:  # noqa: ANN401 (whatever the text holds)
    """Return the YAML value of ``text``: ``"1e-3"`` is 0.001, ``"[1, 2]"`` a list, ``""`` None.

    Args:
        text: The right-hand side of an override ``key=value``.
        where: What to call it in the error line.

    Raises:
        FedltError: If it is not YAML.
    """
    return _parse(text, where)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that the YAML file ``path`` holds.

    Raises:
        FedltError: If the file is missing, unreadable, empty, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FedltError(f"{path}: not a text file (UTF-8)") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FedltError(f"{path}: cannot be read: {reason}") from error
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
