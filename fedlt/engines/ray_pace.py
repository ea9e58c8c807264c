"""How many jobs go to a Ray worker in one call: many short ones, or one long one.

A call costs some milliseconds of processor time, whatever it does. Jobs that take less than this
go together. Long jobs go one by one, so that no worker waits for another one's last jobs. The sums
of a call come back one by one and are added in cohort order, so grouping changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence

SHORT = 0.02  # seconds: a call that takes no longer is not split
LONG = 0.3  # seconds: a call of several jobs takes no longer
PART = 0.75  # of a worker's share of the waiting work; the rest levels out what workers differ by
MAX_BYTES = 64 * 2**20  # of answers to a call of several jobs
_KEPT = 0.5  # weight of the rounds before, each time a new one begins


class Pace:
    """Seconds a training image, and bytes a job, by the answers so far; and groups of jobs."""

    def __init__(self) -> None:
        self._seconds = self._images = 0.0
        self._bytes = 0

    def begin(self) -> None:
        """Begin a round: what is learned from now on counts more than what was learned before."""
        self._seconds *= _KEPT
        self._images *= _KEPT

    def learn(self, images: int, seconds: float, size: int) -> None:
        """Take in the answer to a job.

        Args:
            images: Training images of the job's clients.
            seconds: Seconds that the worker needed.
            size: Bytes of the answer's tensors.
        """
        self._seconds += seconds
        self._images += images
        self._bytes = max(self._bytes, size)

    def group(self, waiting: Sequence[int], workers: int) -> int:
        """Return how many of the waiting jobs, from the first, go to a worker in the next call.

        Args:
            waiting: Training images of every waiting job, at least one job.
            workers: Number of workers.
        """
        if not self._images:
            return 1
        rate = self._seconds / self._images
        goal = max(SHORT, min(LONG, PART * rate * sum(waiting) / workers))
        most = min(-(-len(waiting) // workers), MAX_BYTES // max(1, self._bytes))
        total, number = 0.0, 0
        for images in waiting[: max(1, most)]:
            total += rate * images
            if number and total > goal:
                break
            number += 1
        return number
