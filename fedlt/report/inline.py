"""Figure as SVG within a page: its colours follow the page, its names meet no other figure's."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from fedlt.report.tones import with_variables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ID = re.compile(r' id="([^"]+)"')
_USE = re.compile(r'(?<=url\(#)[^)]+(?=\))|(?<=href="#)[^"]+(?=")')
_SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)  # page.css says the same
_ROOT = re.compile(r'<svg [^>]*?(viewBox="[^"]+")[^>]*>')
_SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_UNSAID = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def inline_svg(figure: Figure, slug: str, alt: str) -> str:
    """Return a figure as an SVG element; text becomes outlines, equal on every machine.

    Args:
        figure: The figure, drawn in the light colours of :mod:`fedlt.report.tones`.
        slug: A name that no other figure of the page has, the start of all ids.
        alt: The alternative text for screen readers.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=_UNSAID, dpi=150)
    text = out.getvalue()
    text = _SHEET.sub("", text[text.index("<svg") :])
    start = f'<svg class="plot" role="img" aria-label="{escape(alt)}"'
    text = _ROOT.sub(lambda found: f"{start} {found[1]} {_SPACES}>", text, count=1)
    return with_variables(_own_ids(text, slug))


def _own_ids(svg: str, slug: str) -> str:
    """Return an SVG with short ids that begin with ``slug``, without ids that nothing uses."""
    new = {name: f"{slug}-{n}" for n, name in enumerate(dict.fromkeys(_USE.findall(svg)))}
    svg = _ID.sub(lambda found: f' id="{new[found[1]]}"' if found[1] in new else "", svg)
    return _USE.sub(lambda found: new[found[0]], svg)
