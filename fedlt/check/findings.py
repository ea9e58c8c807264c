"""Findings of a check: its line, and for a failing check what to change and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "fail", "skip", "note"]


@dataclass(frozen=True)
class Result:
    """The outcome of one check."""

    name: str
    status: Status  # skip: it could not be tried; note: for information, no failure
    line: str
    change: str = ""  # what to change, of a failing check
    where: str = ""  # file:line (Class.verb)

    def __str__(self) -> str:
        """Return the whole as text."""
        lines = [f"{self.name}: {self.line}"]
        lines += [f"  change: {self.change}"] if self.change else []
        lines += [f"  where:  {self.where}"] if self.where else []
        return "\n".join(lines)


class Violation(Exception):  # noqa: N818 (of the contract)
    """A promise that a class does not keep.

    Args:
        line: What was seen.
        change: What to change.
        where: The place, as :func:`fedlt.check.source_lines.place` gives it.
    """

    def __init__(self, line: str, *, change: str, where: str = "") -> None:
        super().__init__(line)
        self.line, self.change, self.where = line, change, where


class Note(str):
    """A check's answer that is worth knowing, and no failure."""

    __slots__ = ()
