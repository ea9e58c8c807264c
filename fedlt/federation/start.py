"""The weights that ``model.weights`` names, read once in the driver, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from fedlt.errors import FedltError
from fedlt.federation.terms import Terms
from fedlt.models import Model, build_model
from fedlt.models.freezing import frozen_names
from fedlt.models.weights import (
    COUNTER,
    Match,
    StartWeights,
    as_array,
    as_ours,
    match,
    read_state_dict,
)
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory
from fedlt.runs.files import is_run

_MOST_NAMED = 4  # names of a list that a line gives


def find_start(terms: Terms) -> StartWeights | None:
    """Return the weights with which the model of a run begins; None without ``model.weights``.

    A state dict fills the backbone. A finished run fills the backbone, and those heads of its
    generic model that have a head of the same name and shapes.

    Args:
        terms: The run.

    Raises:
        FedltError: If the weights cannot be read, nothing of them fits the network, or frozen
            parts of the backbone would stay random.
    """
    named = terms.config.model.weights
    if named is None:
        return None
    path = Path(named)
    given = _of_run(path) if path.is_dir() else read_state_dict(path)
    plain = build_model(
        **terms.config.model.network(),
        image_shape=terms.image_shape,
        num_classes=terms.num_classes,
        seed=terms.seed,
    )
    inside = "backbone."
    wanted = {n.removeprefix(inside): t for n, t in plain.state().items() if n.startswith(inside)}
    heads = {n: t for n, t in given.items() if path.is_dir() and not n.startswith(inside)}
    found = match({n: t for n, t in given.items() if n not in heads}, wanted)
    start = StartWeights(
        {f"{inside}{name}": as_array(tensor) for name, tensor in found.tensors.items()},
        {name: as_array(t) for name, t in given.items()} if path.is_dir() else {},
    )
    model = replace(terms, start=start).build_model()
    if not found.tensors and (wanted or not model.filled):
        raise FedltError(
            f"model.weights: no tensor of {named} fits the network {terms.config.model.name}: "
            f"it has {_told(given, wanted)}; the network has {_told(wanted, given)}"
        )
    _check_frozen(model, terms.config.model.freeze, found)
    return replace(start, lines=_lines(named, found, start, model))


def _check_frozen(model: Model, freeze: Sequence[str] | Literal["all"], found: Match) -> None:
    """Refuse frozen parts of the backbone that the weights leave as they were drawn.

    Integer buffers are not drawn: they count, or are constants of the network.
    """
    kept = {*model.filled, *model.integer_names()}
    names = [name for name in frozen_names(model, freeze) if name not in kept]
    if names:
        more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
        raise FedltError(
            f"model.freeze: {names[0]}{more} frozen, but model.weights does not fill "
            f"{'them; they' if len(names) > 1 else 'it; it'} would stay random"
            f"{_why_unfilled(names[0].removeprefix('backbone.'), found)}"
        )


def _why_unfilled(name: str, found: Match) -> str:
    """Return in words why weights do not fill a tensor: another shape, or how many fit at all."""
    if name in found.misfits:
        given, wanted = (list(tensor.shape) for tensor in found.misfits[name])
        return f". The weights have it as {given}, the network as {wanted}"
    return f". {len(found.tensors)} tensors of the weights fit: is this the right network?"


def check_weights(named: str | None) -> None:
    """Raise if ``model.weights`` is neither a file nor a finished run."""
    path = Path(named or ".")
    if named is not None and path.is_dir():
        _finished(path)
    elif named is not None and not path.is_file():
        raise FedltError(f"model.weights: no file {named!r}")


def _finished(path: Path) -> RunDirectory:
    if not is_run(path):
        raise FedltError(f"model.weights: {path} is no run; name a run, such as runs/quickstart/1")
    directory = RunDirectory(path)
    directory.recorded()
    if directory.state != "finished":
        raise FedltError(f"model.weights: {path} is not finished; resume it first")
    return directory


def _of_run(path: Path) -> dict[str, Tensor]:
    """Return the generic model of a finished run by the model's names, without its networks."""
    directory = _finished(path)
    rounds = directory.config().rounds
    found = load_checkpoint(
        directory.checkpoints,
        run=directory.run,
        check=lambda one: "" if one.round == rounds else f"the run ends with round {rounds}",
    )
    if found is None:
        raise FedltError(f"model.weights: {path} has no checkpoint")
    tensors = {**found.tensors["fixed"], **found.tensors["broadcast"]}
    return {n: t for n, t in tensors.items() if n.startswith(("backbone.", "heads."))}


def _lines(named: str, found: Match, start: StartWeights, model: Model) -> tuple[str, ...]:
    """Return lines: what the weights fill, a warning of what they do not, and what is not used.

    Args:
        named: The weights, as the configuration names them.
        found: Their tensors that have a place in the backbone.
        start: The weights as they fill a model.
        model: The finished model, filled.
    """
    filled = set(model.filled)
    backbone = [n for n in model.names() if n.startswith("backbone.") and not _counts(n)]
    count = sum(name in filled for name in backbone)
    lines = [f"weights of {named}: {count} of {len(backbone)} tensors of the backbone"]
    lines[0] += _heads(model, filled)
    misfits = {f"backbone.{name}": pair for name, pair in found.misfits.items()}
    parts = {
        "does not fit": [f"{name} {_sizes(*pair)}" for name, pair in misfits.items()],
        "new": [name for name in backbone if name not in filled and name not in misfits],
    }
    words = [f"{what}: {_some(names)}" for what, names in parts.items() if names]
    words += ["is this the right network?"] if 2 * count < len(backbone) else []
    lines += [f"warning: the weights leave parts of the backbone: {'; '.join(words)}"] * any(words)
    heads = start.head_misfits(model)
    lines += [f"weights: a head does not fit: {_some(shapes)}" for shapes in heads.values()]
    under = tuple(f"{head}." for head in heads)
    used = {*filled, *(name for name in start.whole if name.startswith(under))}
    others = [*found.unused, *(n for n in start.whole if not n.startswith("backbone."))]
    unused = [n for n in others if n not in used and not _counts(n)]
    return (*lines, *([f"weights: not used: {_some(unused)}"] if unused else []))


def _counts(name: str) -> bool:
    return name.endswith(COUNTER)


def _sizes(given: Tensor, wanted: Tensor) -> str:
    return f"{tuple(given.shape)} for {tuple(wanted.shape)}"


def _heads(model: Model, filled: set[str]) -> str:
    """Return the words about other filled parts: heads, and networks of the client plugin."""
    parts = [("heads", model.heads), ("networks", model.networks)]
    found = [f"{kind}.{name}" for kind, table in parts for name in table]
    own = [name for name in found if _under(f"{name}.", filled)]
    return f", {', '.join(own)}" if own else ""


def _under(prefix: str, names: set[str]) -> bool:
    return any(name.startswith(prefix) for name in names)


def _told(tensors: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """Return names with shapes, the names first that the other side lacks."""
    known = [f".{as_ours(name)}" for name in other]

    def is_known(name: str) -> bool:
        mine = f".{as_ours(name)}"
        return any(mine.endswith(one) or one.endswith(mine) for one in known)

    order = sorted(tensors, key=is_known)
    return _some([f"{name} {tuple(tensors[name].shape)}" for name in order if not _counts(name)])


def _some(listed: Sequence[str]) -> str:
    more = len(listed) - _MOST_NAMED
    text = ", ".join(listed[:_MOST_NAMED])
    return f"{text} and {more} more" if more > 0 else text
