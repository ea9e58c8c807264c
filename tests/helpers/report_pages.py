"""Pages of ``fedlt report``, read back: as strictly as XML is."""

from __future__ import annotations

import xml.etree.ElementTree as ET


def parse(path):
    return ET.fromstring(path.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>"))


def texts(page, tag):
    return [" ".join("".join(node.itertext()).split()) for node in page.iter(tag)]


def table(page, caption):
    """Return headings and rows, a number as it was measured."""
    found = next(t for t in page.iter("table") if t.find("caption").text == caption)
    rows = [
        [
            float(cell.find("data").get("value")) if cell.find("data") is not None else cell.text
            for cell in row
        ]
        for row in found.find("tbody")
    ]
    return [head.text for head in found.find("thead").iter("th")], rows


def row_of(page, method):
    """Return headings and texts of a method's row beside the personal view."""
    caption = "Beside the personal view"
    found = next(t for t in page.iter("table") if t.find("caption").text == caption)
    rows = [["".join(cell.itertext()) for cell in row] for row in found.find("tbody")]
    heads = [head.text for head in found.find("thead").iter("th")]
    return heads, next(row for row in rows if row[0] == method)
