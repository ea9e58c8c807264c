"""Hook of mkdocs: every page of a method is listed beside the others and on the page of its kind.

A page's first line names its methods. The first line of a class's docstring describes it.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- table of the methods -->"


def pages_of(folder: Path) -> dict[str, list[str]]:
    """Return the pages of a folder, by file name, with the methods that they are about."""
    return {
        page.name: re.findall(r"`(\w+)`", page.read_text(encoding="utf-8").partition("\n")[0])
        for page in sorted(folder.glob("*.md"))
        if page.name != "index.md"
    }


def completed(entries: list[Any], docs: Path) -> list[Any]:
    """Return a navigation in which the index of a folder of methods is followed by its pages."""
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            items = entry.items()
            entry = {t: completed(v, docs) if isinstance(v, list) else v for t, v in items}
        found.append(entry)
        if isinstance(entry, str) and re.fullmatch(r"methods/\w+/index\.md", entry):
            folder = entry.removesuffix("index.md")
            pages = pages_of(docs / folder).items()
            found += [{", ".join(names): f"{folder}{page}"} for page, names in pages]
    return found


def on_config(config: MkDocsConfig) -> None:
    """Complete the navigation."""
    config.nav = completed(config.nav, Path(config.docs_dir))


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Put the table of a folder's methods where its index asks for it."""
    if MARK not in markdown:
        return markdown
    from clients import CLIENTS
    from strategies import STRATEGIES

    classes = {**STRATEGIES, **CLIENTS}
    rows = [
        f"| [`{name}`]({file}) | {(inspect.getdoc(classes[name]) or '').splitlines()[0]} |"
        for file, names in pages_of(Path(page.file.abs_src_path).parent).items()
        for name in names
        if name in classes
    ]
    table = "\n".join(["| name | in a line |", "| --- | --- |", *rows]).replace("``", "`")
    return markdown.replace(MARK, table)
