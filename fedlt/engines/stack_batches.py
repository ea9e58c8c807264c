"""Batches of stacked clients, and the choice of the clients that step next."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Sequence
from typing import cast

from fedlt.client import Batch, Client
from fedlt.engines.lockstep import TrainRequest
from fedlt.rng import set_torch_state, torch_state
from fedlt.worker.template import BatchClient, UnstackableError
from fedlt.worker.training import phase_batches, step_factors

_AHEAD = 8  # batches drawn at once, between two exchanges of torch's global generator


class Stream:
    """Batches of one client, drawn under the client's own state of torch's global generator."""

    def __init__(self, request: TrainRequest) -> None:
        self._request, self._tensors = request, _marks(request.client)
        client = cast(Client, BatchClient(request.client))
        self._source = phase_batches(client, request.phase)
        self._factors = step_factors(request.client, request.phase)
        self.factor = 1.0  # of the learning rate, for the batch that was taken last
        self._drawn: deque[Batch] = deque()
        self.kind: Hashable = None  # key of the next batch; None after the last batch
        self._look()

    def take(self) -> Batch:
        """Return the next batch."""
        batch, self.factor = self._drawn.popleft(), next(self._factors)
        self._look()
        return batch

    def _look(self) -> None:
        if not self._drawn:
            self._draw()
        self.kind = _kind(self._drawn[0]) if self._drawn else None

    def _draw(self) -> None:
        request = self._request
        set_torch_state(request.draws)
        self._drawn.extend(itertools.islice(self._source, _AHEAD))
        request.draws = torch_state()
        if _marks(request.client) != self._tensors:
            raise UnstackableError("batches changes client.tensors; put it into Batch.extra")


def largest_group(streams: Sequence[Stream]) -> tuple[int, ...]:
    """Return the positions of the largest group with stackable next batches; () at the end.

    Of two groups of one size the group of the first stream is chosen. Streams with the most batches
    come first: they decide the number of steps, and other streams wait for company.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, stream in enumerate(streams):
        if stream.kind is not None:
            groups.setdefault(stream.kind, []).append(position)
    largest: list[int] = max(groups.values(), key=len, default=[])
    return tuple(largest)


def _marks(client: Client) -> list[tuple[str, int, int]]:
    return [(name, id(tensor), tensor._version) for name, tensor in client.tensors.items()]


def _kind(batch: Batch) -> Hashable:
    """Return a key that batches must have in common to be stacked: shapes, types, extras."""
    extra = tuple((name, tensor.shape, tensor.dtype) for name, tensor in batch.extra.items())
    return batch.images.shape, batch.images.dtype, batch.labels.shape, extra
