"""Ctrl-C and SIGTERM while a run goes: when they may interrupt it, and when they have to wait.

Most of a run may be interrupted at any place: what the place has not finished is dropped. Where
several things have to change together (the models, the personal states and the books of a round; a
checkpoint on disk), a signal is remembered and raised after the last of them.
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

INSISTENT = 3  # presses inside ``held`` after which a run is interrupted all the same
GRACE = 1.0  # seconds after an interrupt in which another press says nothing new


class Stops:
    """The signals of one run, between ``with`` and its end.

    A signal is taken over where it would raise KeyboardInterrupt, in the main thread; elsewhere,
    or where somebody else handles it, everything stays as it is.
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
        """Give the signals back."""
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
        """Let signals wait until the block is left; the third one does not wait any more.

        Raises:
            KeyboardInterrupt: At the end, if there was one.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pressed and not self._held:
            self._interrupt()
