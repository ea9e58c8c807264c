"""The site builds without a warning, holds every method, and loads nothing from outside."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT

from clients import CLIENTS
from fedlt.realigning.changes import METHODS
from strategies import STRATEGIES

needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material")),
    reason="needs mkdocs: the extra docs",
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def build(config: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config)]
    return subprocess.run(
        [*command, "-d", str(output)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    output = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", output)
    assert done.returncode == 0, done.stderr
    return output


class Loads(HTMLParser):
    """Collects what a browser would fetch by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.found.append(given.get("src"))
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.found.append(given.get("href"))


@needs_mkdocs
def test_pages_load_nothing_from_outside(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        parser = Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        outside = [url for url in parser.found if url and re.match(r"(?:https?:)?//", url)]
        assert not outside, page
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", styles)


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    ["metrics.md#no-such-part", "nowhere.md", "none.svg"],
)
def test_a_broken_link_stops_the_build(tmp_path, target):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    page = tmp_path / "docs/limits.md"
    page.write_text(page.read_text(encoding="utf-8") + f"\n[a]({target})\n", encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert done.returncode != 0
    assert target in done.stderr


@needs_mkdocs
@pytest.mark.parametrize("folder", ["generic", "personal", "longtail", "plugins"])
def test_the_page_of_a_kind_lists_its_methods(site, folder):
    text = (site / "methods" / folder / "index.html").read_text(encoding="utf-8")
    known = titles(folder) & {*STRATEGIES, *CLIENTS}
    assert known <= set(re.findall(r"<td><a href=[^>]*><code>(\w+)</code>", text))
    assert inspect.getdoc({**STRATEGIES, **CLIENTS}[min(known)]).split(maxsplit=1)[0] in text


class Shown(HTMLParser):
    """The code in the first cells of a page's tables, and the text of its paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        self.paragraphs: list[str] = []
        self._cell, self._code, self._inside = -1, False, False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self._cell = -1
        self._cell += tag == "td"
        if tag == "code" and self._cell == 0:
            self._code = True
            self.keys.append("")
        if tag == "p":
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._code = self._code and tag != "code"
        if tag in ("td", "table"):
            self._code = False
        if tag == "table":
            self._cell = -1
        self._inside = self._inside and tag != "p"

    def handle_data(self, data: str) -> None:
        if self._code:
            self.keys[-1] += data
        if self._inside:
            self.paragraphs[-1] += data


def shown_on(page: Path) -> Shown:
    parser = Shown()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


@needs_mkdocs
def test_every_row_of_a_table_is_a_row_on_the_site(site):
    """Every row of a source is a row of the site; no row became words of a paragraph."""
    pages = list(site.rglob("index.html"))
    assert len(pages) > 60
    for page in pages:
        broken = [text for text in shown_on(page).paragraphs if text.lstrip().startswith("|")]
        assert not broken, page
    shown = shown_on(site / "configuration/index.html").keys
    source = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `([\w.]+)` \|", source, re.MULTILINE)
    assert len(keys) > 120
    assert Counter(keys) == Counter(shown)


@needs_mkdocs
def test_the_site_has_the_colours_of_the_system_light_and_dark(site):
    """The start page offers the system's colours, light and dark, and its pictures lie on white."""
    page = (site / "index.html").read_text(encoding="utf-8")
    assert 'data-md-color-media="(prefers-color-scheme: dark)" data-md-color-scheme="slate"' in page
    assert page.count('name="__palette"') == 3
    rule = re.search(
        r"\[data-md-color-scheme=\"slate\"\] \.md-typeset img \{([^}]*)\}",
        (site / "wide.css").read_text(encoding="utf-8"),
    )
    assert rule is not None
    assert "background: #fff" in rule[1]


@needs_mkdocs
def test_old_addresses_go_on_working(site):
    """Addresses and anchors that other people may have written down go on working."""
    for name in (
        "first_run", "command_line", "concepts", "configuration", "data", "partitions", "metrics",
        "methods", "extending/own_methods", "python", "tutorials/paper_table", "compare", "report",
        "export", "reproduce", "engines", "deploy", "faults", "privacy", "tables", "results",
        "limits", "layout", "stability", "older",
    ):  # fmt: skip
        assert (site / name / "index.html").is_file(), name
    page = (site / "configuration/index.html").read_text(encoding="utf-8")
    for anchor in ("the-run-directory", "what-a-result-belongs-to"):
        assert f'id="{anchor}"' in page


@needs_mkdocs
def test_comments_about_tests_are_not_shown(site):
    for page in site.rglob("*.html"):
        text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "&lt;!--" not in text, page


@pytest.mark.parametrize("path", [p for p in PAGES if p.parent == ROOT], ids=lambda p: p.name)
def test_links_outside_the_site_lead_somewhere(path):
    links = [link for link in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link]
    assert links
    assert not [link for link in links if not (path.parent / link).exists()]


def titles(*folders: str) -> set[str]:
    """Return the names in the first lines of the pages of these folders."""
    pages = [p for folder in folders for p in (ROOT / "docs/methods" / folder).glob("*.md")]
    first = [page.read_text(encoding="utf-8").split("\n")[0] for page in pages]
    return {name for line in first for name in re.findall(r"`(\w+)`", line)}


def test_every_method_has_a_page():
    assert set(STRATEGIES) <= titles("", "generic", "personal", "longtail")
    assert set(CLIENTS) <= titles("plugins")
    assert set(METHODS) <= titles("after_training")
