"""Weights from elsewhere: read a state dict, match its names to a network's, fill a model.

Names need not be equal. A common beginning (``module.``, ``backbone.``, ``net.``) is taken off
either side, and torchvision's names of a ResNet are those of ours, by :func:`as_ours`: of all ways
the one is taken under which most tensors have a place of their shape.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlt.errors import FedltError, one_line
from fedlt.machine.memory import as_tensor
from fedlt.models.index import find_parts
from fedlt.models.model import Model

_INSIDE: Final = ("state_dict", "model_state_dict", "model", "net")  # keys of a training checkpoint
_COMMON = 0.3  # share of the names that have a prefix, for it to be tried
_DEEPEST = 3  # dots in such a prefix
COUNTER: Final = "num_batches_tracked"  # of BatchNorm: says nothing to anybody


@dataclass(frozen=True)
class Match:
    """Tensors of a state dict that have a place in a network."""

    tensors: dict[str, Tensor]  # by the network's names
    misfits: dict[str, tuple[Tensor, Tensor]]  # network's name -> tensors given and wanted
    unused: tuple[str, ...]  # names of the state dict


@dataclass(frozen=True, eq=False)
class StartWeights:
    """Weights with which the initial model of every party begins. Picklable, the arrays shared."""

    backbone: Mapping[str, NDArray[Any]]  # by the names of the model before any plugin changes it
    whole: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # names of a finished model
    lines: tuple[str, ...] = ()  # what was found, for the user

    def fill_backbone(self, model: Model) -> set[int]:
        """Copy the backbone's weights into a new model; return the ids of the filled tensors."""
        return _fill(model, self.backbone)

    def fill_rest(self, model: Model, filled: set[int]) -> None:
        """Copy what fits a finished model by its name; ``model.filled`` then names all filled.

        A head is filled whole, or not at all.
        """
        state, misfits = model.state(), self.head_misfits(model)
        fits = {
            name: array
            for name, array in self.whole.items()
            if name in state and array.shape == state[name].shape and _head_of(name) not in misfits
        }
        filled |= _fill(model, fits)
        model.filled = tuple(p.name for p in find_parts(model) if id(p.tensor) in filled)

    def head_misfits(self, model: Model) -> dict[str, list[str]]:
        """Return the heads that model and weights both have and that differ, with their shapes."""
        given = {name: tuple(array.shape) for name, array in self.whole.items()}
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state().items()}
        both = {_head_of(n) for n in given} & {_head_of(n) for n in wanted} - {""}
        found: dict[str, list[str]] = {}
        for name in {**given, **wanted}:
            head = _head_of(name)
            if head in both and given.get(name) != wanted.get(name):
                there, here = given.get(name, "nothing"), wanted.get(name, "nothing")
                found.setdefault(head, []).append(f"{name} {there} for {here}")
        return found


def _head_of(name: str) -> str:
    """Return ``heads.NAME`` for the name of a head's tensor, and "" for any other name."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "heads" else ""


def _fill(model: Model, arrays: Mapping[str, NDArray[Any]]) -> set[int]:
    model.load({name: as_tensor(array) for name, array in arrays.items()}, arrays)
    return {id(part.tensor) for part in find_parts(model) if part.name in arrays}


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values as an array that nobody writes; floats as float32."""
    value = tensor.detach().cpu()
    array: NDArray[Any] = (value.float() if value.is_floating_point() else value).numpy().copy()
    array.flags.writeable = False
    return array


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name: safetensors, or saved by ``torch.save``.

    Nothing but tensors is unpickled.

    Raises:
        FedltError: If the file is missing or holds no state dict.
    """
    if not path.is_file():
        raise FedltError(f"model.weights: no file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, OSError) as error:
        raise FedltError(f"model.weights: {path} cannot be read: {one_line(error)}") from error
    except Exception as error:
        raise FedltError(
            f"model.weights: {path} is no state dict: it holds more than tensors, or is damaged; "
            "save network.state_dict() with torch.save or safetensors"
        ) from error
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = found.items() if isinstance(found, Mapping) else ()
    named = {str(name): value for name, value in tensors if isinstance(value, Tensor)}
    if not named:
        raise FedltError(f"model.weights: {path} holds no named tensors; is it a state dict?")
    return named


def match(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Match:
    """Return the tensors of ``given`` by the names of ``wanted``, see the module's docstring."""
    best: dict[str, str] = {}  # wanted name -> given name
    most = 0
    ways = product(_beginnings(given, _COMMON), _beginnings(wanted, 1.0), (False, True))
    for cut, put, renames in ways:
        pairs = {}
        for name in given:
            if name.startswith(cut):
                bare = name[len(cut) :]
                pairs[put + (as_ours(bare) if renames else bare)] = name
        pairs = {name: other for name, other in pairs.items() if name in wanted}
        fitting = sum(
            _fits(given[other], wanted[name])
            for name, other in pairs.items()
            if not name.endswith(COUNTER)
        )
        if fitting > most:
            best, most = pairs, fitting
    tensors = {n: given[o] for n, o in best.items() if _fits(given[o], wanted[n])}
    misfits = {n: (given[o], wanted[n]) for n, o in best.items() if n not in tensors}
    used = set(best.values())
    return Match(tensors, misfits, tuple(name for name in given if name not in used))


def _fits(given: Tensor, wanted: Tensor) -> bool:
    return given.shape == wanted.shape and given.is_floating_point() == wanted.is_floating_point()


def _beginnings(names: Iterable[str], share: float) -> list[str]:
    """Return dotted prefixes that at least a share of the names have, the shortest first."""
    listed = list(names)
    counts: Counter[str] = Counter()
    for name in listed:
        parts = name.split(".")[:-1][:_DEEPEST]
        counts.update(".".join(parts[: end + 1]) + "." for end in range(len(parts)))
    found = [prefix for prefix, count in counts.items() if count >= share * len(listed)]
    return ["", *sorted(found, key=lambda prefix: (len(prefix), prefix))]


_TORCHVISION: Final = (
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.downsample\.", ".shortcut."),
)


def as_ours(name: str) -> str:
    """Return the name of our ResNet for a tensor's name in torchvision's: layer1 is stages.0."""
    for pattern, new in _TORCHVISION:
        name = re.sub(pattern, new, name)
    return re.sub(r"^layer(\d)\.", lambda found: f"stages.{int(found[1]) - 1}.", name)
