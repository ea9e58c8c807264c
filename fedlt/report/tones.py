"""Tones: the colours of pictures, each for a light and for a dark page.

Pictures are drawn in the light colours, which picture files keep. On the page every tone is a CSS
variable, so that one picture serves both (:func:`tone_css`, :mod:`fedlt.report.inline`). The first
five colours of methods are Okabe and Ito's (https://jfly.uni-koeln.de/color/), chosen for every
kind of colour vision. Their orange, sky blue and yellow are too pale for lines on white; a wine red
and Tol's indigo (https://personal.sron.nl/~pault/) stand in.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Tone(NamedTuple):
    """Tone: a colour by its use or name."""

    name: str  # of the CSS variable, without dashes
    light: str  # six hexadecimal digits, lower case, after a #
    dark: str


PAGE = Tone("page", "#ffffff", "#16191d")  # background
INK = Tone("ink", "#000000", "#ececec")  # text, axes, whiskers
GRID = Tone("grid", "#e0e0e0", "#353b43")
BACKDROP = Tone("backdrop", "#d0d0d0", "#4a525c")  # other methods behind the one that is shown
BLANK = Tone("blank", "#fdfdfd", "#d5d9de")  # empty cells of a map
GREY = Tone("grey", "#767676", "#868e97")  # reference points, all classes together
BLUE = Tone("blue", "#0072b2", "#2f7fd0")
VERMILION = Tone("vermilion", "#d55e00", "#ee6a24")
GREEN = Tone("green", "#009e73", "#17a97d")
PINK = Tone("pink", "#cc79a7", "#db7cb4")
WINE = Tone("wine", "#831106", "#f6cc5a")
INDIGO = Tone("indigo", "#332288", "#8cd9ff")
MEDIUM = Tone("medium", "#3a98d0", "#55a8dc")  # a class group, as BLUE is many
FEW = Tone("few", "#bf8000", "#cf9222")
TONES = (
    PAGE, INK, GRID, BACKDROP, BLANK, GREY, BLUE, VERMILION, GREEN, PINK, WINE, INDIGO, MEDIUM, FEW,
)  # fmt: skip
METHODS = (BLUE, VERMILION, GREEN, PINK, INK, WINE, INDIGO)  # lines of methods, by position

# Colours that stay on both pages: numbers on the coloured cells of a map; pixels.
ON_PALE, ON_DEEP, PIXELS = "#010101", "#fefefe", "#7f7f7f"

_BY_LIGHT = {tone.light: tone for tone in TONES}
_PAINT = re.compile(r'((?:fill|stroke)(?:: |="))(#[0-9a-f]{6})\b')


def with_variables(svg: str) -> str:
    """Return the text of an SVG with the light colours of fills and strokes as CSS variables."""
    return _PAINT.sub(lambda found: f"{found[1]}{_variable(found[2])}", svg)


def _variable(color: str) -> str:
    tone = _BY_LIGHT.get(color)
    return color if tone is None else f"var(--{tone.name})"


def tone_css() -> str:
    """Return the style sheet that gives each tone its value: light, and dark on dark screens."""
    light, dark = (
        " ".join(f"--{tone.name}: {value};" for tone, value in zip(TONES, values, strict=True))
        for values in zip(*((tone.light, tone.dark) for tone in TONES), strict=True)
    )
    return (
        f":root {{ {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )
