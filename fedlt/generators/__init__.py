"""Generators of synthetic images, one per file, and the table of their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedlt.config.explain import refusal
from fedlt.config.ranges import hints_of
from fedlt.errors import nearest
from fedlt.generators.federated_ddpm import FederatedDdpm
from fedlt.generators.generator import Generator
from fedlt.generators.local_ddpm import LocalDdpm
from fedlt.generators.pooled_oracle import PooledOracle
from fedlt.generators.stable_diffusion import StableDiffusion

__all__ = ["GENERATORS", "Generator", "make_generator"]

_ALL = (FederatedDdpm, LocalDdpm, PooledOracle, StableDiffusion)
GENERATORS: dict[str, type[Generator]] = {cls.name: cls for cls in _ALL}


def make_generator(given: str | Mapping[str, object], *, needed: bool = True) -> Generator | None:
    """Return the generator that the configuration names, with its settings.

    Args:
        given: Name, or mapping of ``name`` and settings, as in the configuration file.
        needed: False: check nothing and return None.

    Raises:
        ValueError: One line, if a name or a setting is not valid.
    """
    if not needed:
        return None
    options = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in GENERATORS:
        raise ValueError(f"generator: unknown name {name!r}{nearest(str(name), GENERATORS)}")
    cls = GENERATORS[name]
    hints = hints_of(cls, name)
    known = {field.name: field for field in fields(cls)}
    for key in options:
        if key not in known:
            raise ValueError(f"generator: {name} has no setting {key!r}{nearest(key, known)}")
    for key, field in known.items():
        if field.default is MISSING and key not in options:
            raise ValueError(f"generator: {name} needs {key}")
    values: dict[str, Any] = {}
    for key, value in options.items():
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f"generator: {refusal(key, value, error.errors())}") from error
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"generator: {error}") from error
