"""Tables of the pages are whole and complete, no row stands twice; every page can be reached."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import typer
import yaml
from doc_blocks import PAGES, ROOT, prose_of

from fedlt.cli import app

HIDDEN = re.compile(r"`[^`]*`|\\\|")  # pipes in code, and escaped ones, divide no cells


def tables(path: Path) -> list[list[str]]:
    """Return the tables of a page, each a list of its lines."""
    found: list[list[str]] = [[]]
    for line in prose_of(path).split("\n"):
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def cells(line: str) -> int:
    return HIDDEN.sub("", line.strip()).count("|") - 1


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_table_has_a_header_and_rows_of_its_width(path):
    """A blank line inside a table would cut it in two, the second without a header."""
    for table in tables(path):
        assert len(table) > 2, table[0]
        assert re.fullmatch(r"[|\s:-]+", table[1]), table[0]
        assert [line for line in table if cells(line) != cells(table[0])] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_row_stands_twice_in_a_table(path):
    for table in tables(path):
        assert [line for line, times in Counter(table).items() if times > 1] == []


def test_the_command_line_page_has_every_command():
    page = (ROOT / "docs/command_line.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `fedlt (\w+)", page, re.MULTILINE))
    assert named == set(typer.main.get_command(app).commands)


def test_every_page_of_the_folder_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    listed = re.findall(r"[\w/]+\.md", str(navigation))
    assert [name for name, times in Counter(listed).items() if times > 1] == []
    sections = [next(iter(section)) for section in navigation]
    assert len(sections) == 7
    pages = {str(p.relative_to(ROOT / "docs")) for p in PAGES if p.is_relative_to(ROOT / "docs")}
    methods = {page for page in pages if re.fullmatch(r"methods/\w+/\w+\.md", page)}
    indexes = {page for page in methods if page.endswith("/index.md")}
    scripts = {f"tutorials/{p.stem}.md" for p in (ROOT / "docs/tutorials").glob("*.py")}
    assert set(listed) == pages - (methods - indexes) | scripts
