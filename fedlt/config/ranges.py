"""Ranges of numbers as type hints, and a base of dataclasses that checks fields against the hints.

mu: NotNegative = 0.01
warmup: Share = 0.1
expert_width: Annotated[float, Field(ge=0.5, le=1)] = 0.75
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache, wraps
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fedlt.config.explain import refusal
from fedlt.errors import FedltError

# bool is an int to Python; strict types keep `true` out of numbers. The upper bounds are far above
# # useful values; they catch a typing error that would fill the memory or run for ever.
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]  # clients, rounds, images
Whole = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Epochs = Annotated[int, Field(strict=True, ge=0, le=10_000)]  # passes a round
Width = Annotated[int, Field(strict=True, ge=1, le=8192)]  # channels, or hidden units
Depth = Annotated[int, Field(strict=True, ge=1, le=1000)]  # layers
Memory = Annotated[int, Field(strict=True, ge=0, le=1 << 30)]  # MiB
Seed = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NotNegative = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(strict=True, ge=0, lt=1)]
PartShare = Annotated[float, Field(strict=True, gt=0, lt=1)]
ShareAboveZero = Annotated[float, Field(strict=True, gt=0, le=1)]
Finite = Annotated[float, Field(strict=True)]
Name = Annotated[str, Field(strict=True, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def hints_of(of: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 (a class or a function)
    """Return the type hints of a class or a function, with their ranges.

    Raises:
        FedltError: If a hint cannot be read, such as a name that only a type checker knows.
    """
    try:
        return get_type_hints(of, include_extras=True)
    except Exception as error:
        raise FedltError(f"{where}: a type annotation cannot be read: {error}") from error


class Checked:
    """Base of dataclasses that refuse a value outside the type hint of its field.

    Hints with a range (``Annotated``) or with choices (``Literal``) are checked, other hints are
    for the reader. The check runs before a ``__post_init__`` of the subclass, which can then
    compare valid values with each other.

    Raises:
        ValueError: When an object is made, with the field, its value and the expected range.
    """

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 (passed on)
        super().__init_subclass__(**options)
        own = vars(cls).get("__post_init__")
        if own is None:
            return

        @wraps(own)
        def both(self: Checked) -> None:
            Checked.__post_init__(self)
            own(self)

        cls.__post_init__ = both  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Check every field against its type hint."""
        made: Any = type(self)
        for name, adapter in _adapters(made).items():
            value = getattr(self, name)
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                raise ValueError(refusal(name, value, error.errors(include_url=False))) from error


@cache
def _adapters(cls: Any) -> dict[str, TypeAdapter[Any]]:  # noqa: ANN401 (a dataclass)
    hints = hints_of(cls, cls.__name__)
    limited = [f.name for f in fields(cls) if f.init and _is_limited(hints[f.name])]
    rule = ConfigDict(strict=True, allow_inf_nan=False)
    return {name: TypeAdapter(hints[name], config=rule) for name in limited}


def _is_limited(hint: object) -> bool:
    return get_origin(hint) in (Annotated, Literal) or any(map(_is_limited, get_args(hint)))
