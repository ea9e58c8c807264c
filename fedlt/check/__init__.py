"""Conformance kit: checks that a class keeps the contract of a strategy or a client plugin.

``fedlt check NAME`` on the command line, :func:`conformance` in a test. Every check runs in a
fraction of a second on a tiny federation; a failing check says what to change, and where.
"""

from __future__ import annotations

from fedlt.check.cases import conformance
from fedlt.check.findings import Result
from fedlt.check.kit import CHECKS, Check, checks_of, run_check, run_checks
from fedlt.check.tiny_federation import TINY, Bench, Subject, frozen, raw, subject_of

__all__ = [
    "CHECKS",
    "TINY",
    "Bench",
    "Check",
    "Result",
    "Subject",
    "checks_of",
    "conformance",
    "frozen",
    "raw",
    "run_check",
    "run_checks",
    "subject_of",
]
