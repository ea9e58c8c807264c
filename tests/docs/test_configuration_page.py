from pathlib import Path

import pytest
from pydantic import BaseModel

from fedlt.config import Config

PAGE = (Path(__file__).parents[2] / "docs/configuration.md").read_text()


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        nested = isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_fields
        if nested and "options" not in kind.model_fields | {}:
            found += keys(kind, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


@pytest.mark.parametrize("key", keys(Config))
def test_every_key_is_documented(key):
    assert f"`{key}`" in PAGE
