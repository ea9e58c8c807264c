"""The colours of a report on light and dark pages: contrast, and difference for every eye."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from fedlt.report import page
from fedlt.report.tones import (
    FEW,
    GREY,
    INK,
    MEDIUM,
    METHODS,
    PAGE,
    TONES,
    tone_css,
    with_variables,
)

CSS = Path(page.__file__).with_name("page.css").read_text(encoding="utf-8")
# Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009, severity 1.0; rows give R, G and B
EYES = {
    "every cone": np.eye(3),
    "no red cone": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cone": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue cone": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_CONES = [  # OKLab, Ottosson 2020: linear sRGB to cones, then to lightness and two hues
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def linear(color):
    """Linear red, green and blue of sRGB (IEC 61966-2-1)."""
    long = color if len(color) == 7 else "#" + "".join(2 * digit for digit in color[1:])
    values = np.array([int(long[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """Contrast ratio of WCAG 2.1."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_is_that_of_published_examples():
    """#767676 is the lightest grey that passes 4.5 on white; black on white is 21."""
    assert contrast("#000000", "#fff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") >= 4.5 > contrast("#777777", "#ffffff")


@pytest.mark.parametrize("side", ["light", "dark"])
def test_lines_and_bars_are_seen_on_the_page(side):
    behind = getattr(PAGE, side)
    for tone in (*METHODS, MEDIUM, FEW, GREY):
        assert contrast(getattr(tone, side), behind) >= 3, tone.name
    assert contrast(getattr(INK, side), behind) >= 7


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("side", ["light", "dark"])
def test_methods_differ_for_every_eye(side, eye):
    """No two lie closer than the closest of Okabe and Ito's first five do (0.076), nearly."""
    seen = [np.clip(EYES[eye] @ linear(getattr(tone, side)), 0, 1) for tone in METHODS]
    places = [TO_LAB @ np.cbrt(TO_CONES @ color) for color in seen]
    near = min(np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2))
    assert near >= 0.07


@pytest.mark.parametrize("side", ["light", "dark"])
def test_text_is_read_on_the_page_and_in_its_boxes(side):
    """WCAG AA: 4.5 for text. Variables of the page stand in the first and the second :root."""
    block = re.findall(r":root \{([^}]*)\}", CSS)[side == "dark"]
    own = dict(re.findall(r"--(\w+): (#\w+);", block))
    for words, behind in itertools.product(
        ("text", "soft", "link"), (getattr(PAGE, side), own["answer"], own["care"])
    ):
        assert contrast(own[words], behind) >= 4.5, (words, behind)


def test_every_variable_has_a_light_and_a_dark_value():
    light, dark = (
        set(re.findall(r"--(\w+):", block))
        for block in re.findall(r":root \{([^}]*)\}", tone_css())
    )
    assert light == dark == {tone.name for tone in TONES}
    page_light, page_dark = (
        set(re.findall(r"--(\w+):", b)) for b in re.findall(r":root \{([^}]*)\}", CSS)[:2]
    )
    assert page_light == page_dark
    assert set(re.findall(r"var\(--(\w+)\)", CSS)) <= light | page_light
    assert "screen and (prefers-color-scheme: dark)" in tone_css()  # paper stays light


def test_only_paint_of_tones_becomes_a_variable():
    text = '<use href="#0072b2" style="fill: #0072b2; stroke: #123456"/><rect fill="#ffffff"/>'
    assert with_variables(text) == (
        '<use href="#0072b2" style="fill: var(--blue); stroke: #123456"/><rect fill="var(--page)"/>'
    )
