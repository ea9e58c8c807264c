"""Fill the tables of docs/leaderboard.md from experiments/results: ``python .ci/leaderboard.py``.

Each part of the page stands between ``<!-- from NAME -->`` and ``<!-- end of NAME -->``. It is the
file ``leaderboard.md`` of ``fedlt leaderboard``, word for word; its figure goes to docs/figures/.
A test says when the page is out of date.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from fedlt.cli import main as fedlt

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/leaderboard.md"
RESULTS = ROOT / "experiments/results"
PARTS = {  # part of the page -> heading of each data set -> its folder in RESULTS, if there is one
    "leaderboard": {
        "Fashion-MNIST-LT": "leaderboard-fashion-mnist",
        "CIFAR-10-LT": "leaderboard-cifar10",
    },
    "others": {"Fashion-MNIST-LT": "leaderboard-fashion-mnist-others"},
}


def parts_of(text: str) -> list[str]:
    """Return the parts that a page's text has places for."""
    return re.findall(r"^<!-- from (\w+) -->$", text, re.MULTILINE)


def filled(text: str, contents: dict[str, str]) -> str:
    """Return a page's text with contents between the marks of each part."""
    for name, content in contents.items():
        first, last = f"<!-- from {name} -->\n", f"<!-- end of {name} -->"
        head, _, rest = text.partition(first)
        _, mark, tail = rest.partition(last)
        if not mark:
            raise ValueError(f"{PAGE}: no place for {name}: {first.strip()} ... {last}")
        text = f"{head}{first}\n{content}\n{last}{tail}"
    return text


def made(name: str, folder: Path) -> str:
    """Make a part in an empty folder; return its text, which names the figure by its place."""
    places = {heading: RESULTS / place for heading, place in PARTS[name].items()}
    given = [f"{heading}={place}" for heading, place in places.items() if place.exists()]
    if not given:
        raise ValueError(f"{PAGE}: {RESULTS} has no results for the part {name}")
    if fedlt(["--quiet", "leaderboard", *given, "--output", str(folder)]) != 0:
        raise SystemExit(1)
    text = (folder / "leaderboard.md").read_text(encoding="utf-8")
    return text.replace("(ranks.svg)", f"(figures/{name}.svg)")


def updated(figures: Path | None = None) -> str:
    """Return the page with the tables of today; ``figures``: a folder that gets the figures."""
    text = PAGE.read_text(encoding="utf-8")
    contents = {}
    for name in parts_of(text):
        with tempfile.TemporaryDirectory() as place:
            contents[name] = made(name, Path(place))
            if figures is not None:
                shutil.copyfile(Path(place) / "ranks.svg", figures / f"{name}.svg")
    return filled(text, contents)


def main() -> None:
    """Write the page and its figures."""
    PAGE.write_text(updated(ROOT / "docs/figures"), encoding="utf-8")


if __name__ == "__main__":
    main()
