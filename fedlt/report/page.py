"""Report as one HTML page that opens from disk and loads no other file.

The page is also well-formed XML. Its colours follow the reader's light or dark setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fedlt.comparing.sheet import Sheet, to_html
from fedlt.report.inline import inline_svg
from fedlt.report.picture import Picture
from fedlt.report.tones import tone_css

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class PageSection:
    """Section of the page that is not a picture."""

    slug: str
    heading: str
    text: str
    sheets: Sequence[tuple[Sheet, bool]]  # table, folded away
    terms: Sequence[tuple[str, str]] = ()  # word, meaning


@dataclass(frozen=True)
class Content:
    """Content of the page, in order."""

    title: str
    introduction: str
    summary: Sequence[str]
    warnings: Sequence[str]
    table: Sheet
    moments: Sheet
    beside: Sheet  # references beside the personal view
    verdicts: PageSection | None  # None: nothing to compare
    pictures: Sequence[Picture]
    sections: Sequence[PageSection]
    footer: str


def render(content: Content) -> str:
    """Return the HTML text of the page."""
    verdicts = [] if content.verdicts is None else [content.verdicts]
    links = [("table", "Table"), *((one.slug, one.heading) for one in verdicts)]
    links += [(p.slug, p.title.partition(":")[0]) for p in content.pictures]
    links += [(section.slug, section.heading) for section in content.sections]
    body = [
        f"<h1>{escape(content.title)}</h1>",
        f"<p>{escape(content.introduction)}</p>",
        _box("answer", "In short", content.summary),
        _box("care", "Before you trust a difference", content.warnings),
        _nav(links),
        '<h2 id="table">The figures</h2>',
        to_html(content.table),
        _folded("Other moments of the runs", [to_html(content.moments)]),
        _folded("References and masks of the personal view", [to_html(content.beside)]),
        *map(_section, verdicts),
        *map(_picture, content.pictures),
        *map(_section, content.sections),
        f'<p class="note">{escape(content.footer)}</p>',
    ]
    return _document(content.title, "\n".join(filter(None, body)))


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f'<meta name="color-scheme" content="light dark" />\n<title>{escape(title)}</title>\n'
        f"<style>{tone_css()}{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _box(kind: str, heading: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="{kind}"><div class="head">{escape(heading)}</div><ul>{items}</ul></div>'


def _nav(links: Iterable[tuple[str, str]]) -> str:
    items = " ".join(f'<a href="#{slug}">{escape(words)}</a>' for slug, words in links)
    return f"<nav>{items}</nav>"


def _folded(words: str, parts: Sequence[str]) -> str:
    return f"<details><summary>{escape(words)}</summary>{''.join(parts)}</details>"


def _picture(picture: Picture) -> str:
    tables = list(map(to_html, picture.sheets))
    image = inline_svg(picture.figure, picture.slug, picture.alt)
    return (
        f'<h2 id="{picture.slug}">{escape(picture.title)}</h2>\n<p>{escape(picture.how)}</p>\n'
        f"<figure>{image}</figure>\n{_folded('The numbers behind this picture', tables)}"
    )


def _section(section: PageSection) -> str:
    parts = [f'<h2 id="{section.slug}">{escape(section.heading)}</h2>']
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    for sheet, is_folded in section.sheets:
        table = to_html(sheet)
        parts.append(_folded(sheet.title, [table]) if is_folded else table)
    if section.terms:
        items = (f"<dt>{escape(t)}</dt><dd>{escape(m)}</dd>" for t, m in section.terms)
        parts.append(f"<dl>{''.join(items)}</dl>")
    return "\n".join(parts)
