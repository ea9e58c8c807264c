"""A worker: the scratch model of one process, and client tasks that use it one after another.

Every tensor of the scratch model is overwritten before a task, and every draw is keyed, so a task's
result does not depend on the tasks before it or on the process it runs in.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlt.client import Client, ClientData, Trainer
from fedlt.data.prior import log_prior
from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.machine.compiler import check_compiler, compile_in_place
from fedlt.machine.devices import SharedCopies, find_device
from fedlt.machine.maps import placed
from fedlt.machine.memory import as_tensor
from fedlt.models.batchnorm import batchnorm_statistics, to_moments
from fedlt.rng import seed_torch
from fedlt.strategy import ServerState, Tensors, Update
from fedlt.worker.training import train_alone

if TYPE_CHECKING:
    from fedlt.config import LocalConfig
    from fedlt.federation import ClientShare, ClientShares


def prepare_process() -> None:
    """Set one torch thread and flush denormals: first thing in every process that trains.

    More threads than free cores slow small convolutions down many times over. The tiny gradients
    that a small classifier norm makes fall into denormal floats, which a CPU computes in microcode.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


class Worker:
    """Does the tasks of the clients whose shares the process has. A worker knows no test set."""

    def __init__(self, shares: ClientShares) -> None:
        self.shares = shares
        self.device = find_device(shares.config.engine.device)
        self.model = model = shares.build_model().to(self.device)
        self.trainer: Trainer = train_alone
        model.pack()
        self._shared = SharedCopies(self.device)
        self._images = placed(shares.images, self.device)
        self._labels = as_tensor(shares.labels).to(self.device)
        self._mean, self._std = self._placed(shares.mean), self._placed(shares.std)
        self._material = {n: as_tensor(a).to(self.device) for n, a in shares.material.items()}
        self._initial = {name: model.state()[name].clone() for name in model.names("personal")}
        self._moments = batchnorm_statistics(model, "shared")
        self._log_prior = lru_cache(maxsize=256)(self._find_log_prior)
        self._data = lru_cache(maxsize=256)(self._find_data)
        self._local = lru_cache(maxsize=2)(self._find_local)

    def compile(self) -> None:
        """Let the backbone run compiled code from now on, as ``engine.compile`` asks for.

        Raises:
            FedltError: If PyTorch cannot compile here.
        """
        check_compiler(self.device.type)
        compile_in_place(self.model.backbone)

    def twin(self) -> Self:
        """Return a worker with another scratch model; both share everything else."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.model.pack()
        return other

    def _placed(self, values: npt.ArrayLike) -> Tensor:
        return torch.as_tensor(values, device=self.device)

    def client_data(self, cid: int, *, pooled: bool = False) -> ClientData:
        """Return client ``cid``'s share of the data; with ``pooled`` all clients' images."""
        return self._data(None if pooled else cid)

    def _find_data(self, cid: int | None) -> ClientData:
        share = self._share(cid)
        return ClientData(
            images=self._images,
            labels=self._labels,
            indices=as_tensor(share.positions),
            class_counts=self._placed(share.class_counts),
            mean=self._mean,
            std=self._std,
        )

    def _find_local(self, round_: int) -> LocalConfig:
        return self.shares.config.local.at(round_, self.shares.config.rounds)

    def _share(self, cid: int | None) -> ClientShare:
        """Return a client's share; None stands for everybody's images."""
        return self.shares.everybody() if cid is None else self.shares.of(cid)

    def client(
        self,
        cid: int,
        round_: int,
        broadcast: Mapping[str, Tensor],
        *,
        fixed: Mapping[str, Tensor],
        personal: Tensors,
        global_counts: Sequence[int] | np.ndarray | None = None,
        pooled: bool | None = None,
    ) -> Client:
        """Return client ``cid`` with the scratch model loaded.

        Args:
            cid: The client.
            round_: The global round, from 1.
            broadcast: The shared part of the model, and extras.
            fixed: The fixed part of the model.
            personal: What this client stored; empty before its first round: it is drawn then.
            global_counts: (C,) class counts that the server may know, where ``prior`` asks for
                them.
            pooled: Give the client all images; None: as the strategy's traits say.
        """
        shares, model = self.shares, self.model
        pooled = shares.strategy.traits.pools if pooled is None else pooled
        data = self.client_data(cid, pooled=pooled)
        counts = None if global_counts is None else tuple(global_counts)
        broadcast = self._shared.of("broadcast", broadcast)
        client = Client(
            cid=cid,
            round=round_,
            rounds=shares.config.rounds,
            seed=shares.seed,
            model=model,
            broadcast=broadcast,
            personal=self._moved(personal),
            data=data,
            local=self._local(round_),
            plugin=shares.plugin,
            tensors={
                "class_counts": data.class_counts,
                "log_prior": self._log_prior(None if pooled else cid, counts),
                "known_counts": data.class_counts if counts is None else self._placed(counts),
            },
            trainer=self.trainer,
            asked=(shares.cohort_size, shares.num_clients),
            material=self._material,
        )
        model.load_groups(
            {"fixed": fixed, "shared": broadcast, "personal": client.personal or self._initial}
        )
        if not personal:
            client.personal = self._moved(shares.strategy.init_personal(client))
        if not personal and client.personal:
            model.load_groups({"personal": client.personal})
        shares.plugin.setup(client)
        seed_torch(shares.seed, "task", round_, cid)
        return client

    def first_client(self, state: ServerState, cid: int, counts: np.ndarray | None) -> Client:
        """Return client ``cid``, which has stored nothing yet, as it begins a round.

        Args:
            state: The server's state at the start of the round.
            cid: The client.
            counts: (C,) class counts that the server may know; None: it knows none.
        """
        return self.client(
            cid,
            state.round + 1,
            state.broadcast,
            fixed=state.fixed,
            personal={},
            global_counts=counts,
        )

    def _moved(self, tensors: Tensors) -> Tensors:
        return tensors if self.device.type == "cpu" else self._shared.moved(tensors)

    def _find_log_prior(self, cid: int | None, global_counts: tuple[int, ...] | None) -> Tensor:
        """Return the log class prior (C,) that a client's losses use, by the run's policy.

        None stands for everybody's images.
        """
        prior, own = self.shares.config.prior, self._share(cid).class_counts
        known = None if global_counts is None else np.asarray(global_counts, dtype=np.int64)
        return self._placed(log_prior(own, known, use=prior.use, gamma=prior.gamma))

    def train(self, client: Client) -> Update:
        """Do one client's task; the update's tensors live in the scratch model."""
        further = self.shares.plugin.train_networks(client)
        update = self.shares.strategy.local_update(client)
        if further:
            examples = update.metrics.get("examples", 0.0)
            sums = {name: mean * examples for name, mean in further.items()}
            update = replace(update, metrics={**update.metrics, **sums})
        if client.draws is not None:
            update = _by_draws(update, client)
        if self.shares.config.batchnorm == "pooled":
            moments = to_moments(update.sums, self._moments, about=client.broadcast)
            update = replace(update, sums=moments)
        return update

    def finished(self, request: ScoreRequest) -> ScoreRequest:
        """Return the request, its personal models after `adapt` and ``personal.refresh``."""
        generic = self.shares.strategy.generic
        if self.shares.tunes or not generic(self.model, request.broadcast):
            finished = tuple(self._finish(request, client) for client in request.clients)
            request = replace(request, clients=finished)
        return request

    def _finish(self, request: ScoreRequest, asked: ClientRequest) -> ClientRequest:
        """Return one client's personal model, ready for scoring.

        A client that never took part starts from its first state, with the personal part of the
        generic model where that one borrows a mean of the participants'. The strategy's ``adapt``
        comes next, then ``personal.refresh``.
        """
        if asked.personal is None:
            return asked
        policy, strategy = self.shares.config.personal.refresh, self.shares.strategy
        client = self.client(
            asked.cid,
            request.round + 1,
            request.broadcast,
            fixed=request.fixed,
            personal=dict(asked.personal),
            global_counts=request.global_counts,
            pooled=False,
        )
        if not asked.personal and request.private_mean:
            borrowed = self._moved(dict(request.private_mean))
            self.model.load(borrowed, borrowed)
            client.personal = {**client.personal, **borrowed}
        start = strategy.personal_weights(self.model, client.broadcast, client.personal)
        self.model.load(start, start)
        own = client.personal
        if strategy.adapt_epochs:
            own = client.personal = strategy.adapt(client)
        if policy.epochs:
            own = strategy.refresh(client, scope=policy.scope, epochs=policy.epochs)
        state = {name: tensor.clone() for name, tensor in self.model.state().items()}
        trained = {
            name: state[name]
            for name in self.model.names("shared")
            if not torch.equal(state[name], client.broadcast[name])
        }
        personal = {name: tensor.detach().clone() for name, tensor in own.items()}
        return replace(asked, personal=personal, refreshed=trained, steps=client.steps_done)


def _by_draws(update: Update, client: Client) -> Update:
    """Return the update weighed by the number of draws: the mean over draws is plain.

    Raises:
        ValueError: If the strategy has given the update a weight of its own.
    """
    if update.weight != client.data.num_examples:
        raise ValueError(
            f"sampling: by_size draws clients by their images; the strategy weighs client "
            f"{client.cid} by {update.weight:g} itself"
        )
    return replace(update, weight=float(client.draws or 0) if update.weight else 0.0)
