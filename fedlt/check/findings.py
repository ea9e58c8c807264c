"""Findings of a check: a line, and for a failing check the change to make and its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "fail", "skip", "note"]


@dataclass(frozen=True)
class Result:
    """Outcome of one check."""

    name: str
    status: Status  # skip: the check could not run; note: for information, no failure
    line: str
    change: str = ""  # what to change, of a failing check
    where: str = ""  # file:line (Class.verb)

    def __str__(self) -> str:
        """Return the outcome as text."""
        lines = [f"{self.name}: {self.line}"]
        lines += [f"  change: {self.change}"] if self.change else []
        lines += [f"  where:  {self.where}"] if self.where else []
        return "\n".join(lines)


class Violation(Exception):  # noqa: N818 (of the contract)
    """Error of a check: a promise of the contract that a class does not keep.

    Args:
        line: The observed behaviour.
        change: The change to make.
        where: The place, as returned by :func:`fedlt.check.source_lines.place`.
    """

    def __init__(self, line: str, *, change: str, where: str = "") -> None:
        super().__init__(line)
        self.line, self.change, self.where = line, change, where


class Note(str):
    """Outcome of a check that is worth knowing, but not a failure."""

    __slots__ = ()
