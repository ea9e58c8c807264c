"""Open a finished run and return a scored model of it, made by the code that scored the run.

The images of the run are loaded only where a model is made from them: where `adapt` or
``personal.refresh`` tunes a client's model just before scoring, or where a client that never took
part starts from a first state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fedlt.config.raised import users_code
from fedlt.errors import FedltError, nearest
from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.export.description import describe
from fedlt.export.finished_run import FinishedRun
from fedlt.export.scored_model import ScoredModel
from fedlt.federation import prepare_parties
from fedlt.federation.evaluator import private_mean
from fedlt.federation.packing import unpack
from fedlt.federation.result import described
from fedlt.federation.terms import Terms
from fedlt.runs.checkpoints import state_folder
from fedlt.runs.personal_states import PersonalStates
from fedlt.worker.model_loader import ModelLoader
from fedlt.worker.worker import Worker, prepare_process

if TYPE_CHECKING:
    from fedlt.federation.packing import ServerSnapshot
    from fedlt.models import Model
    from fedlt.runs.personal_states import Snapshot
    from fedlt.strategy import HeadFunction


def scored_model(
    path: str | Path, *, client: int | None = None, head: str | None = None
) -> ScoredModel:
    """Return a model of a finished run as a module: images in, logits of one head out.

    The user's strategy, client plugin and backbone are executed.

    Args:
        path: The run directory, or a folder that holds one seed.
        client: The client whose personal model is meant; None: the generic model.
        head: Name of the head; the primary head by default.

    Returns:
        A module that maps images (B, Ch, H, W), as the data set holds them, to logits (B, C). Its
        attribute ``info`` has the class names and more, see `docs/export.md`.

    Raises:
        FedltError: If there is no such run, client or head, or the run's code or data have changed.
    """
    prepare_process()
    run = FinishedRun.at(path)
    server, _, snapshot = unpack(run.checkpoint, len(run.evaluation.client_counts))
    _check_place(run, client, snapshot)
    is_own = _has_own_model(run, client, server)
    cid = client if is_own else None
    needs_images = cid is not None and (run.tunes or not server.trained[cid])
    parties = None
    if needs_images or "images" not in run.result:  # a run of an older version
        parties = prepare_parties(run.config, run.strategy, run.plugin)
        run = replace(run, result={**run.result, **described(parties.observer.data)})
    run.check(parties)
    worker = Worker(parties.shares) if parties is not None and needs_images else None
    model = _initial_model(run) if worker is None else worker.model
    loader = ModelLoader(run.strategy, model)  # before a task changes the model
    request = _request(run, server, snapshot, model, cid)
    if worker is not None and parties is not None:
        counts = parties.view.ask_counts(server.heard)
        told = None if counts is None else tuple(counts.tolist())
        request = worker.finished(replace(request, global_counts=told))
    request = loader.placed(request)
    heads = loader.load_generic(request)
    if is_own:
        heads = loader.load_own(request, request.clients[0])[1]
    names = _head_names(run, heads, client)
    name = names[0] if head is None else head
    if name not in names:
        raise FedltError(f"head: no head {name!r} here{nearest(name, names)}")
    images = run.result["images"]
    return ScoredModel(
        model.backbone,
        heads[name] if is_own or client is None else next(iter(heads.values())),
        run.plugin.predict,
        mean=images["mean"],
        std=images["std"],
        info=describe(run, names, head=name, client=client, is_own=is_own),
    )


def _check_place(run: FinishedRun, client: int | None, snapshot: Snapshot) -> None:
    """Refuse a model whose personal parts are at the nodes of a deployment.

    Raises:
        FedltError: If the model needs them.
    """
    held = snapshot.table.get("at_node")
    away = run.config.deployment.data == "nodes" or (held is not None and len(held) > 0)
    if away and client is not None:
        raise FedltError(f"client: the personal model of client {client} is at its node, not here")
    if away and run.result["generic_model"] == "average":
        raise FedltError(
            "the generic model is an average of personal parts, which are at the nodes"
        )


def _has_own_model(run: FinishedRun, client: int | None, server: ServerSnapshot) -> bool:
    """Return True if a client is scored with a personal model, not with the generic model.

    Raises:
        FedltError: If there is no such model.
    """
    sizes = run.evaluation.client_counts.sum(axis=1)
    holders = np.flatnonzero(sizes)
    if client is None:
        if run.has_generic:
            return False
        name = run.config.strategy.name
        raise FedltError(
            f"strategy {name!r} has no generic model; give a client, such as {holders[0]}"
        )
    if not 0 <= client < len(sizes):
        close = min(max(client, 0), len(sizes) - 1)
        raise FedltError(
            f"client: no client {client}; nearest: {close}; known: 0 to {len(sizes) - 1}"
        )
    if not sizes[client]:
        close = holders[np.abs(holders - client).argmin()]
        raise FedltError(
            f"client: client {client} has no training images, so no model of its own; "
            f"nearest with images: {close}"
        )
    return run.tunes or not run.has_generic or bool(server.trained[client])


def _initial_model(run: FinishedRun) -> Model:
    """Return the run's model as it was built, without the run's images."""
    result, counts = run.result, run.evaluation.client_counts
    shape: tuple[int, int, int] = tuple(result["images"]["shape"])
    classes = len(result["class_names"])
    terms = Terms(run.config, run.strategy, run.plugin, classes, shape, len(counts))
    with users_code(f"strategy {run.config.strategy.name}: building the model fails"):
        return terms.build_model()


def _request(
    run: FinishedRun, server: ServerSnapshot, snapshot: Snapshot, model: Model, cid: int | None
) -> ScoreRequest:
    """Return the request by which the run scored its generic model, or client ``cid``'s model."""
    states = PersonalStates()
    states.spill_to(state_folder(run.directory.checkpoints), run.config.engine.personal_memory)
    states.restore(snapshot, round=run.checkpoint.round)
    lent: dict[str, Tensor] = {}
    if run.result["generic_model"] == "average":
        sizes = run.evaluation.client_counts.sum(axis=1)
        lent = private_mean(states, model.names("personal"), sizes)
    own = () if cid is None else (ClientRequest(cid, states.get(cid, {}), base=False),)
    return ScoreRequest(
        round=run.checkpoint.round,
        broadcast=server.tensors["broadcast"],
        fixed=server.tensors["fixed"],
        private_mean=lent,
        start=0,
        stop=0,
        generic=False,
        keep_logits=False,
        clients=own,
    )


def _head_names(
    run: FinishedRun, heads: Mapping[str, HeadFunction], client: int | None
) -> tuple[str, ...]:
    """Return the names of the heads, the primary head first.

    A client that never took part is scored by the generic model's primary head under every name of
    a personal head.
    """
    personal = run.evaluation.personal
    if client is None or personal is None:
        return tuple(heads)
    return personal.heads
