"""Every tutorial runs in an empty folder, and is a page of the site."""

from __future__ import annotations

import importlib.util
import re
import runpy

import pytest
from doc_blocks import ROOT

FOLDER = ROOT / "docs/tutorials"
SHORT = ("first_run", "own_data")  # in the fast tier, with fewer rounds
SCRIPTS = sorted(FOLDER.glob("*.py"))


def cases():
    for path in SCRIPTS:
        marks = [] if path.stem in SHORT else [pytest.mark.slow]
        yield pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", list(cases()))
def test_a_tutorial_runs(path, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas", reason="needs fedlt[pandas]")
    monkeypatch.chdir(tmp_path)
    if path.stem in SHORT:
        text = (
            path.read_text().replace("rounds=10", "rounds=5").replace('"rounds": 8', '"rounds": 2')
        )
        path = tmp_path / path.name
        path.write_text(text)
    found = runpy.run_path(str(path), run_name="__main__")
    assert "fedlt" in found
    assert capsys.readouterr().out


def test_there_are_six_each_with_a_page_and_few_lines():
    pages = re.findall(r"tutorials/(\w+)\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(pages) == [path.stem for path in SCRIPTS]
    assert len(SCRIPTS) == 6
    assert max(len(path.read_text().splitlines()) for path in SCRIPTS) <= 120


def test_a_page_has_the_prose_and_the_code_of_its_script():
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / ".ci/site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    script = "# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\nx = 1\n\n\n# %%\nprint(x)\n"
    page = module.page_of(script, "one.py")
    blocks = "```python\nx = 1\n```\n\n```python\nprint(x)\n```"
    assert page.startswith(f"# Title\n\nWords.\n\n{blocks}\n\nThis page is a script: [`one.py`]")
