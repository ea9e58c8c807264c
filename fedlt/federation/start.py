"""The weights that ``model.weights`` names, read once in the driver, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from fedlt.errors import FedltError
from fedlt.federation.terms import Terms
from fedlt.models import Model, build_model
from fedlt.models.weights import COUNTER, Match, StartWeights, as_array, match, read_state_dict
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory
from fedlt.runs.files import is_run

_MOST_NAMED = 4  # names of a list that a line gives


def find_start(terms: Terms) -> StartWeights | None:
    """Return the weights with which the model of a run begins; None without ``model.weights``.

    A state dict fills the backbone. A finished run fills the backbone, and those heads of its
    generic model that have a head of the same name and shape.

    Args:
        terms: The run.

    Raises:
        FedltError: If the weights cannot be read, or nothing of them fits the network.
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
        there, here = _some([*given]), _some([*wanted])
        raise FedltError(
            f"model.weights: no tensor of {named} fits the network {terms.config.model.name}: "
            f"it has {there}; the network has {here}"
        )
    used = {name for name in given if name in model.filled}
    found = replace(found, unused=tuple(n for n in (*found.unused, *heads) if n not in used))
    return replace(start, line=_line(named, found, model))


def _of_run(path: Path) -> dict[str, Tensor]:
    """Return the generic model of a finished run by the model's names, without its networks."""
    if not is_run(path):
        raise FedltError(f"model.weights: {path} is no run; name a run, such as runs/quickstart/1")
    directory = RunDirectory(path)
    directory.recorded()
    if directory.state != "finished":
        raise FedltError(f"model.weights: {path} is not finished; fedlt run FILE --resume ends it")
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


def _line(named: str, found: Match, model: Model) -> str:
    """Return one line: which tensors the weights fill, which do not fit, and which are new."""
    filled = set(model.filled)
    backbone = [n for n in model.names() if n.startswith("backbone.") and not n.endswith(COUNTER)]
    count = sum(name in filled for name in backbone)
    words = [f"weights of {named}: {count} of {len(backbone)} tensors of the backbone"]
    words[0] += _heads(model, filled)
    misfits = [
        f"{name} {tuple(given.shape)} for {tuple(wanted.shape)}"
        for name, (given, wanted) in found.misfits.items()
    ]
    new = [name for name in backbone if name not in filled]
    new += [f"heads.{head}" for head in model.heads if not _under(f"heads.{head}.", filled)]
    unused = [name for name in found.unused if not name.endswith(COUNTER)]
    for what, names in (("does not fit", misfits), ("not used", unused), ("new", new)):
        words += [f"{what}: {_some(names)}"] if names else []
    return "; ".join(words)


def _heads(model: Model, filled: set[str]) -> str:
    """Return the words about other filled parts: heads, and networks of the client plugin."""
    parts = [("heads", model.heads), ("networks", model.networks)]
    found = [f"{kind}.{name}" for kind, table in parts for name in table]
    own = [name for name in found if _under(f"{name}.", filled)]
    return f", {', '.join(own)}" if own else ""


def _under(prefix: str, names: set[str]) -> bool:
    return any(name.startswith(prefix) for name in names)


def _some(names: Sequence[str] | Mapping[str, object]) -> str:
    listed = list(names)
    more = len(listed) - _MOST_NAMED
    text = ", ".join(listed[:_MOST_NAMED])
    return f"{text} and {more} more" if more > 0 else text
