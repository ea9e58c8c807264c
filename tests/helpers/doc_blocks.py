"""The code blocks of README and docs, and what a comment before one says about testing it.

A comment right before a block may say, in one line:

    <!-- file mine.py -->               the block is this file; the page's bash blocks find it
    <!-- after `fedlt new client x` --> commands that are run first
    <!-- with `rounds=2` -->            appended to fedlt run, compare, sweep and inspect
    <!-- generate with `rounds=2` -->   appended to fedlt generate
    <!-- fails -->                      the block must fail
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
        *(ROOT / "docs").rglob("*.md"),
    ],
    key=lambda path: (path.parent != ROOT, str(path)),
)
_FENCE = re.compile(r"^```(\S*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    number: int  # from 1, within the page
    language: str
    text: str
    comment: str  # what stands right before it, or nothing

    @property
    def file(self) -> str | None:
        """The name under which the page's commands find this block."""
        found = re.search(r"\bfile (\S+?),?(?=\s)", self.comment)
        return found[1] if found else None

    @property
    def before(self) -> str:
        """Commands that are run first."""
        found = re.search(r"\bafter `([^`]*)`", self.comment)
        return found[1] if found else ""

    @property
    def overrides(self) -> dict[str, str]:
        """What is appended to fedlt's commands, by verb."""
        verbs: dict[str, str] = {}
        for verb, words in re.findall(r"(\bgenerate )?\bwith `([^`]*)`", self.comment):
            names = [verb.strip()] if verb else ["run", "compare", "sweep", "inspect"]
            verbs |= dict.fromkeys(names, words)
        return verbs

    @property
    def fails(self) -> bool:
        """Whether an error is what the block shows."""
        return re.search(r"\bfails\b", self.comment) is not None

    @property
    def code(self) -> str:
        """The text as it is run: of a diff what it adds."""
        if self.language != "diff":
            return self.text
        return "\n".join(line[1:] for line in self.text.split("\n") if line.startswith("+"))


def blocks_of(path: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    language, body, previous, comment = None, [], "", ""
    for line in path.read_text(encoding="utf-8").split("\n"):
        fence = _FENCE.match(line)
        if fence and language is None:
            language, body = fence[1], []
            comment = previous if previous.startswith("<!--") else ""
        elif fence:
            page = str(path.relative_to(ROOT))
            found.append(Block(page, len(found) + 1, language, "\n".join(body), comment))
            language = None
        elif language is not None:
            body.append(line)
        previous = line
    assert language is None, f"{path}: a block is not closed"
    return found


def prose_of(path: Path) -> str:
    """Return a page without its fenced blocks."""
    kept, inside = [], False
    for line in path.read_text(encoding="utf-8").split("\n"):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


BLOCKS = [block for path in PAGES for block in blocks_of(path)]
