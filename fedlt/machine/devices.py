"""Device of a process, and copies on this device of tensors that many client tasks share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedlt.errors import FedltError
from fedlt.machine.memory import Pieces


def find_device(name: str) -> torch.device:
    """Return the device that ``engine.device`` names; ``auto`` is a GPU if torch finds one.

    Raises:
        FedltError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise FedltError("engine.device: cuda: torch finds no GPU here; nearest: 'cpu', 'auto'")
    return torch.device(name)


class SharedCopies:
    """Device copies of tensors that every client task of a round has in common.

    A copy is kept until a task comes with other tensors; on the CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[str, tuple[list[Tensor], dict[str, Tensor]]] = {}

    def of(self, name: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return ``tensors`` on the device, from the copy kept under ``name`` if still valid.

        Example of a name: ``broadcast``.
        """
        if self._device.type == "cpu":
            return tensors
        sources = list(tensors.values())
        held = self._held.get(name)
        if held is None or list(map(id, held[0])) != list(map(id, sources)):
            held = self._held[name] = sources, self.moved(tensors)
        return held[1]

    def moved(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a new copy of ``tensors`` on the device; tensors in one block move together."""
        own = Pieces(tensors)
        own.pieces = [piece.to(self._device) for piece in own.pieces]
        return own.tensors()
