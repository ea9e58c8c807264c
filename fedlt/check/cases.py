"""Conformance kit as pytest cases, one case per check."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from fedlt.check.findings import Result
from fedlt.check.kit import CHECKS, checks_of, run_check
from fedlt.check.tiny_federation import Subject, subject_of


def conformance(
    target: str | type, /, *, ray: bool = False, beside: str = "", **options: object
) -> Callable[[str], None]:
    """Return a test function with one case per check.

        from fedlt.check import conformance

        test_fedprox = conformance("fedprox.py:FedProx", mu=0.1)

    Args:
        target: A built-in name, ``package.module:Class``, the class itself, or ``file.py:Class``; a
            relative path begins at the test's own file.
        ray: True to compare with the Ray engine too, which takes some seconds.
        beside: The client plugin to try a strategy with, or the strategy to try a plugin with.
        options: Hyperparameters.
    """
    import pytest

    frame = inspect.currentframe()
    caller = frame.f_back if frame is not None else None
    folder = Path(caller.f_code.co_filename).parent if caller is not None else Path.cwd()
    subjects: list[Subject] = []
    results: dict[str, Result] = {}

    def result_of(name: str) -> Result:
        if not subjects:
            found = subject_of(target, options, beside=beside, ray=ray, folder=folder)
            subjects.append(found)
        for need in ("builds", *CHECKS[name].needs, name):
            if need not in results:
                results[need] = run_check(need, subjects[0], results)
        return results[name]

    @pytest.mark.parametrize("check", list(CHECKS))
    def test_conformance(check: str) -> None:
        result = result_of(check)
        if check not in checks_of(subjects[0].section):
            pytest.skip("not asked of a client plugin")
        if result.status == "skip":
            pytest.skip(result.line)
        if result.status == "fail":
            pytest.fail(str(result), pytrace=False)

    return test_conformance
