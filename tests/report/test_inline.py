"""Figures within the page: own names, colours of the page; picture files stay light."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from fedlt.report.inline import inline_svg
from fedlt.report.style import LOOKS, new_figure, save, styled

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def figure():
    """A figure with text, markers, a hatch and a clipped band."""
    with styled():
        made = new_figure(2.0)
        axes = made.subplots()
        axes.plot([0, 1], [0, 1], **LOOKS[0].line_of())
        axes.bar([0], [1], hatch="//", color=LOOKS[1].color, edgecolor="white")
        axes.fill_between([0, 1], [0, 0], [1, 2], color=LOOKS[2].color, alpha=0.2)
    return made


def test_two_figures_share_no_name_and_every_reference_leads_within_its_figure(figure):
    texts = [inline_svg(figure, slug, "words") for slug in ("one", "two")]
    names = []
    for text in texts:
        root = ET.fromstring(text)
        own = [node.get("id") for node in root.iter() if node.get("id")]
        used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)
        assert {a or b for a, b in used} == set(own)
        assert len(set(own)) == len(own) > 10
        names.append(set(own))
    assert names[0].isdisjoint(names[1])


def test_the_words_are_read_aloud_and_no_style_leaks(figure):
    alt = r'5 < 6 & "so" \1'
    root = ET.fromstring(inline_svg(figure, "one", alt))
    assert (root.tag, root.get("role"), root.get("aria-label")) == (f"{SVG}svg", "img", alt)
    assert root.get("width") is None  # the page says how wide
    assert root.find(f".//{SVG}style") is None
    assert root.find(f".//{SVG}metadata") is None


def test_the_page_gives_the_colours_and_picture_files_keep_theirs(figure, tmp_path):
    text = inline_svg(figure, "one", "words")
    assert re.findall(r"#[0-9a-f]{6}\b", text) == []
    for name in ("page", "ink", "grid", "blue", "vermilion", "green"):
        assert f"var(--{name})" in text
    (path,) = save(figure, tmp_path, "one", ["svg"])
    written = path.read_text()
    assert "var(" not in written
    assert {"#0072b2", "#d55e00", "#009e73"} <= set(re.findall(r"#[0-9a-f]{6}\b", written))
