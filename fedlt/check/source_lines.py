"""Where in the code of the class under test something is done."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, TracebackType

from fedlt.check.tiny_federation import Subject
from fedlt.config.raised import CORE, is_outside


def place(subject: Subject, *verbs: str) -> str:
    """Return the file and line of the first of ``verbs`` that the class has of its own."""
    cls = type(subject.value)
    for verb in verbs:
        code = _own_code(cls, verb)
        if code is not None:
            return f"{shorten(code.co_filename)}:{code.co_firstlineno} ({cls.__name__}.{verb})"
    try:
        line, file = inspect.getsourcelines(cls)[1], inspect.getfile(cls)
    except (OSError, TypeError):
        return f"class {cls.__name__}"
    return f"{shorten(file)}:{line} (class {cls.__name__})"


def own_verbs(subject: Subject, verbs: Sequence[str]) -> str:
    """Return those of ``verbs`` that the class has of its own, as text; all where it has none."""
    own = [verb for verb in verbs if _own_code(type(subject.value), verb) is not None]
    return " or ".join(own or verbs)


def _own_code(cls: type, verb: str) -> CodeType | None:
    for owner in cls.__mro__:
        function = vars(owner).get(verb)
        if function is None or not _is_own_class(owner):
            continue
        code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
        if isinstance(code, CodeType) and not code.co_filename.startswith("<"):
            return code
    return None


def _is_own_class(cls: type) -> bool:
    module = cls.__module__
    return module not in ("builtins", "fedlt.strategy", "fedlt.client", "fedlt.flower.stock")


def shorten(file: str) -> str:
    """Return a path as it is seen from the working directory."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def root_cause(error: BaseException) -> BaseException:
    """Return the error from which an error was made."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class Places:
    """Tells the code under test from the core, the standard library and other packages."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        modules = {cls.__module__.partition(".")[0] for cls in type(subject.value).__mro__}
        self._packages = modules - {"builtins", "fedlt", "flwr", "abc"}
        self._known: dict[str, bool] = {}

    def is_own(self, file: str, module: str) -> bool:
        """Say whether code of this file and module is under test."""
        if file not in self._known:
            self._known[file] = self._find(file, module.partition(".")[0])
        return self._known[file]

    def _find(self, file: str, package: str) -> bool:
        if file.startswith("<"):  # what a dataclass generates has the module's name
            return False
        return package in self._packages or is_outside(file, [CORE])

    def of_error(self, trace: TracebackType | None) -> str:
        """Return the last place of a traceback in the code under test; empty if there is none."""
        found = ""
        for frame, line in traceback.walk_tb(trace):
            code = frame.f_code
            if self.is_own(code.co_filename, frame.f_globals.get("__name__", "")):
                found = f"{shorten(code.co_filename)}:{line} ({code.co_name})"
        return found

    def of_verb(self, trace: TracebackType | None, *verbs: str) -> str:
        """Return the place of the verb that the core has asked for when an error came.

        Args:
            trace: Of an error that the core raised about what a verb has returned.
            verbs: What else it may have been, the likeliest first.
        """
        asked = [frame.f_code.co_name for frame, _ in traceback.walk_tb(trace)]
        steps = [name for name in asked if name in ("aggregate", "train")]
        if steps and steps[-1] == "aggregate":
            verbs = ("aggregate", *verbs)
        return place(self._subject, *verbs)
