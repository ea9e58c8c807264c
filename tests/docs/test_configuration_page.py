"""docs/configuration.md has every key of the schema once, no other, with its default."""

from __future__ import annotations

import re
from collections import Counter
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from doc_blocks import ROOT, blocks_of
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fedlt.config import Config
from fedlt.config.schema import PluginConfig

PATH = ROOT / "docs/configuration.md"
PAGE = PATH.read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w.]+)` \| (.*?) ?\| (.+) \|$", re.MULTILINE)
PLUGINS = {"strategy": "fedavg", "client": "cross_entropy"}  # their defaults are names
NAMED = {  # the page says what a missing value means
    "model.width": "published",
    "local.head_lr": "`lr`",
    "evaluate.personal_every": "`every`",
    "faults.late.last": "`first`",
    "privacy.quantile.bit_noise": "qN / 20",
}


def section(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a section's annotation, also of an optional section."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models[0] if models else None


def defaults(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return the default of every dotted key."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = section(field.annotation)
        if inner is None:
            found[prefix + name] = field.get_default(call_default_factory=True)
        elif issubclass(inner, PluginConfig):
            found[prefix + name] = PLUGINS.get(name)
            if "loss" in inner.model_fields:
                found[f"{prefix}{name}.loss"] = None
        else:
            found |= defaults(inner, f"{prefix}{name}.")
    return found


DEFAULTS = defaults(Config)
ROWS = {key: (default, meaning) for key, default, meaning in ROW.findall(PAGE)}


def read(cell: str) -> Any:
    """Return the value that a cell shows; a number may be written as 1e-5."""
    text = cell.strip("`")
    return float(text) if re.fullmatch(r"\de-?\d+", text) else yaml.safe_load(text)


def test_the_walk_reaches_sections_of_every_kind():
    """A section with options, one that may be missing, one in another, one of a plugin."""
    for key in ("data.options", "privacy.quantile.lr", "stop.metric", "local.schedule.warmup",
                "deployment.test.dataset", "client.loss", "strategy", "model.freeze"):  # fmt: skip
        assert key in DEFAULTS
    assert len(DEFAULTS) > 120


def test_the_page_has_every_key_once_and_no_other():
    found = Counter(key for key, *_ in ROW.findall(PAGE))
    assert {key for key, times in found.items() if times > 1} == set()
    assert set(DEFAULTS) - set(found) == set()
    assert set(found) - set(DEFAULTS) == set()


@pytest.mark.parametrize("key", [*DEFAULTS])
def test_the_default_is_that_of_the_schema(key):
    shown, meaning = ROWS[key]
    wanted = DEFAULTS[key]
    if key in NAMED:
        assert (shown, wanted) == (NAMED[key], None)
    elif wanted is None or wanted is PydanticUndefined:
        assert shown == ""
    else:
        assert read(shown) == (list(wanted) if isinstance(wanted, tuple) else wanted)
    assert len(meaning) > 3


def test_a_key_stands_under_the_heading_of_its_section():
    top = {key for key in DEFAULTS if "." not in key} - set(PLUGINS)
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        for key, *_ in ROW.findall(text):
            place = "The top of the file" if key in top else key.split(".")[0]
            assert place in (head, *head.split(" and ")), key


def test_every_section_of_the_page_has_one_example_that_sets_its_keys():
    blocks = [yaml.safe_load(b.text) for b in blocks_of(PATH) if b.language == "yaml"]
    parts = [p for p in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:] if ROW.search(p)]
    assert len(blocks) == len(parts) + 1  # and the smallest file
    for part, block in zip(parts, blocks[1:], strict=True):
        sections = {key.split(".")[0] for key, *_ in ROW.findall(part)}
        assert sections & set(block), part.partition("\n")[0]
