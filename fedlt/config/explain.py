"""Turn a pydantic error into one line that a user can act on."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedlt.errors import nearest, shortened

_PLAIN = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "none_required": "null",
    "too_short": "at least one entry",
    "too_long": "fewer entries",
}

_ELSEWHERE = {  # words of other libraries and of papers -> last word of a key
    "learning_rate": "lr",
    "local_learning_rate": "lr",
    "eta": "lr",
    "wd": "weight_decay",
    "bs": "batch_size",
    "num_rounds": "rounds",
    "global_rounds": "rounds",
    "num_epochs": "epochs",
    "local_epochs": "epochs",
    "num_users": "num_clients",
    "num_supernodes": "num_clients",
    "num_nodes": "num_clients",
    "fraction_fit": "clients_per_round",
    "join_ratio": "clients_per_round",
    "frac": "clients_per_round",
    "alpha": "dirichlet_alpha",
    "beta": "dirichlet_alpha",
    "imb_factor": "imbalance_factor",
    "imb_ratio": "imbalance_factor",
    "gpus": "gpus_per_worker",
}


def expected(error: ErrorDetails) -> str:
    """Return the expected value of a validation error as a phrase such as ``"more than 0"``."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _PLAIN:
        return _PLAIN[kind]
    bounds = {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("more than", "gt"),
        "less_than_equal": ("at most", "le"),
        "less_than": ("less than", "lt"),
        "multiple_of": ("a multiple of", "multiple_of"),
    }
    if kind in bounds:
        words, key = bounds[kind]
        bound = context[key]
        return f"{words} {f'{bound:g}' if abs(bound) < 1e5 else f'{bound:,.0f}'}"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return "letters, digits, '.', '_' and '-', the first a letter or digit"
    return error["msg"][:1].lower() + error["msg"][1:]


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 (a type)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _sections(part)


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of ``model``, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for section in _sections(field.annotation):
            yield from known_keys(section, f"{prefix}{name}.")


def _unknown(key: str, model: type[BaseModel]) -> str:
    every, told = list(known_keys(model)), repr(shortened(key))
    section, _, leaf = key.rpartition(".")
    elsewhere = [known for known in every if known.rpartition(".")[2] == leaf]
    if elsewhere:
        return f"unknown key {told}; nearest: {', '.join(map(repr, elsewhere))}"
    meant = [k for k in every if k.rpartition(".")[2] == _ELSEWHERE.get(leaf.lower())]
    if meant:
        beside = [k for k in meant if k.rpartition(".")[0] == section]
        return f"unknown key {told}; nearest: {', '.join(map(repr, beside or meant))}"
    prefix = f"{section}." if section else ""
    siblings = [k for k in every if k.startswith(prefix) and "." not in k[len(prefix) :]]
    return f"unknown key {told}{nearest(key, siblings)}"


def _dotted(location: Sequence[int | str], known: set[str]) -> str:
    """Return the part of ``location`` that a user wrote; pydantic appends the union's branches."""
    key = ""
    for part in location:
        longer = f"{key}.{part}" if key else str(part)
        if isinstance(part, str) and longer not in known:
            break
        key = longer
    return key


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refusal(key: str, value: object, details: Sequence[ErrorDetails]) -> str:
    """Return the refused value of a key and the expected values, from all errors about the key."""
    wanted, hint = [expected(item) for item in details], ""
    if details[0]["type"] == "literal_error" and isinstance(value, str):
        choices = [word.strip("'") for word in wanted[0].replace(" or ", ", ").split(", ")]
        hint = nearest(value, choices).partition("; known:")[0]
    return f"{key} is {_short(value)}; expected {' or '.join(dict.fromkeys(wanted))}{hint}"


def explain(error: ValidationError, model: type[BaseModel], where: Callable[[str], str]) -> str:
    """Return one error line for the first mistake in ``error``.

    Args:
        error: The pydantic error for ``model``.
        model: The validated model, for the known keys.
        where: Returns, for a dotted key, the place of its value (the file, an override).
    """
    known = set(known_keys(model))
    details = error.errors(include_url=False)
    first = next((item for item in details if item["type"] == "extra_forbidden"), details[0])
    if first["type"] == "extra_forbidden":
        key = ".".join(map(str, first["loc"]))
        return f"{where(key)}: {_unknown(key, model)}"
    key = _dotted(first["loc"], known)
    if first["type"] == "missing":
        return f"{where(key)}: {key} is missing"
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return f"{where(key)}: {key}.{text}" if key else f"{where(key)}: {text}"
    same = [item for item in details if _dotted(item["loc"], known) == key]
    return f"{where(key)}: {refusal(key, first['input'], same)}"
