"""Ctrl-C and SIGTERM during a run: signals interrupt at once, or wait for an atomic change.

Most work of a run may be interrupted anywhere; unfinished work is dropped. Some changes have to
happen together, such as the models, personal states and records of a round, or a checkpoint on
disk. A signal during such a change is remembered and raised after it.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

INSISTENT = 3  # number of the signal inside ``held`` that interrupts at once
GRACE = 1.0  # seconds after an interrupt in which further signals are ignored


class Stops:
    """Signal handlers of one run, installed inside the ``with`` block.

    Only the main thread installs handlers, and only for signals that would raise
    KeyboardInterrupt. Signals with another handler stay as they are.
    """

    def __init__(self) -> None:
        self._held = self._pressed = 0
        self._raised = -math.inf
        self._taken: list[signal.Signals] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is signal.default_int_handler:
                    self._taken.append(number)
                    signal.signal(number, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the former handlers."""
        for number in self._taken:
            signal.signal(number, signal.default_int_handler)
        self._taken.clear()

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._pressed += 1
            if self._pressed < INSISTENT:
                return
        elif time.monotonic() - self._raised < GRACE:
            return
        self._interrupt()

    def _interrupt(self) -> None:
        self._pressed, self._raised = 0, time.monotonic()
        raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let signals wait until the end of the block; the third signal interrupts at once.

        Raises:
            KeyboardInterrupt: At the end of the block, if a signal came inside.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pressed and not self._held:
            self._interrupt()


@contextmanager
def stopped_by_terminate() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C inside the block.

    Only the main thread can do so, and only where SIGTERM would end the process: a handler of the
    surrounding program stays.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
