"""Hook of mkdocs: pages of methods are listed, and scripts of docs/tutorials/ become pages.

A page's first line names its methods; each is listed beside the others and on the page of its
kind. The first line of a class's docstring describes it. A tutorial is a Python script whose cells
begin with ``# %%``; cells of prose, with ``# %% [markdown]``, are comments.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
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


def page_of(script: str, name: str) -> str:
    """Return the page of a tutorial in Markdown.

    Args:
        script: The text of the script.
        name: The file name of the script, for a link below the page.
    """
    parts = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        head, _, body = cell.partition("\n")
        if head.strip() == "[markdown]":
            parts.append("\n".join(re.sub("^# ?", "", line) for line in body.strip().split("\n")))
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    below = f"This page is a script: [`{name}`]({name}). Editors and Jupyter open it as a notebook."
    return "\n\n".join([*parts, below]) + "\n"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for every script of docs/tutorials/."""
    from mkdocs.structure.files import File

    for path in sorted(Path(config.docs_dir, "tutorials").glob("*.py")):
        text = page_of(path.read_text(encoding="utf-8"), path.name)
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=text))
    return files


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
