"""Classes of a notebook or script become files that stand alone; cells are played by linecache."""

from __future__ import annotations

import linecache
import runpy
import sys
from types import ModuleType

import pytest

from fedlt.config.session_code import session_text
from fedlt.errors import FedltError


@pytest.fixture
def cell(monkeypatch):
    """Return a function that executes a cell of a notebook, and gives the names after it."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    number = 0

    def execute(text):
        nonlocal number
        number += 1
        file = f"/tmp/ipykernel_1/{number}.py"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), vars(main))
        return vars(main)

    yield execute
    for key in [key for key in linecache.cache if key.startswith("/tmp/ipykernel_1/")]:
        del linecache.cache[key]


def loaded(text, tmp_path):
    file = tmp_path / "written.py"
    file.write_text(text)
    return runpy.run_path(str(file))


def test_a_class_comes_with_all_that_it_uses(cell, tmp_path):
    cell("import math\nimport os.path\nfrom dataclasses import dataclass, field as part\nSCALE = 3")
    cell("def twice(x):\n    return 2 * x * SCALE\n\nlarge = object()")
    names = cell(
        "class Base:\n    def value(self):\n        return twice(self.mu)\n\n"
        "@dataclass\n"
        "class Mine(Base):\n"
        "    mu: float = part(default=1.5)\n"
        "    def there(self):\n"
        "        large = os.path.join('a', 'b')\n"
        "        return large, math.floor(self.mu)\n"
        "\nshown = Mine().value()"
    )
    text = session_text(names["Mine"], "strategy")
    assert "shown" not in text
    assert "large = object" not in text
    found = loaded(text, tmp_path)["Mine"](mu=2.0)
    assert found.value() == 12
    assert found.there() == ("a/b", 2)


def test_the_text_depends_on_what_is_used_and_on_nothing_else(cell):
    source = "class Mine:\n    def value(self):\n        return SCALE"
    first = session_text(cell(f"SCALE = 1\n{source}")["Mine"], "strategy")
    assert session_text(cell(f"other = 5\n{source}")["Mine"], "strategy") == first
    assert session_text(cell("SCALE = 2")["Mine"], "strategy") != first


def test_a_class_without_methods_is_found_in_the_newest_cell(cell, tmp_path):
    cell("class Mine:\n    mu = 1")
    names = cell("class Mine:\n    mu = 2")
    assert loaded(session_text(names["Mine"], "strategy"), tmp_path)["Mine"].mu == 2


def test_a_type_of_another_module_without_a_name_of_its_own(cell, tmp_path):
    names = cell(
        "from fedlt.config.ranges import NotNegative as Weight\n"
        "def make(mu: Weight = 1.0):\n    return mu"
    )
    text = session_text(names["make"], "data.dataset")
    assert "from fedlt.config.ranges import NotNegative as Weight\n" in text  # as the cell has it
    assert loaded(text, tmp_path)["make"]() == 1.0


def test_functions_that_call_each_other(cell, tmp_path):
    names = cell(
        "def even(n):\n    return n == 0 or odd(n - 1)\n\n"
        "def odd(n):\n    return n > 0 and even(n - 1)"
    )
    assert loaded(session_text(names["even"], "data.dataset"), tmp_path)["even"](4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import numpy\nX = numpy.ones(3)\ndef load():\n    return X", "it uses 'X', a ndarray"),
        ("load = eval('lambda: 1')\nload.__name__ = 'load'", "the source of 'load' is not known"),
    ],
)
def test_what_cannot_be_kept_is_said(cell, text, words):
    names = cell(text)
    with pytest.raises(FedltError, match=words) as caught:
        session_text(names["load"], "data.dataset")
    assert str(caught.value).startswith("data.dataset: load cannot be kept for a run: ")
