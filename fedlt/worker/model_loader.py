"""Load the models of a request into a scratch model, and name their heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.machine.devices import SharedCopies
from fedlt.update import HeadFunction, Tensors

if TYPE_CHECKING:
    from fedlt.models import Model
    from fedlt.strategy import Strategy


class ModelLoader:
    """Loader of generic and personal models into one scratch model, given as it was built."""

    def __init__(self, strategy: Strategy, model: Model) -> None:
        self.strategy, self.model = strategy, model
        device: torch.device = next(model.parameters()).device
        self._shared = SharedCopies(device)
        self._initial = {name: model.state()[name].clone() for name in model.names("personal")}

    def placed(self, request: ScoreRequest) -> ScoreRequest:
        """Return the request with its models on the scratch model's device."""
        shared = self._shared
        clients = tuple(
            client
            if client.personal is None
            else replace(
                client,
                personal=shared.moved(client.personal),
                refreshed=shared.moved(client.refreshed),
            )
            for client in request.clients
        )
        return replace(
            request,
            broadcast=shared.of("broadcast", request.broadcast),
            fixed=shared.of("fixed", request.fixed),
            private_mean=shared.of("private mean", request.private_mean),
            clients=clients,
        )

    def load_generic(self, request: ScoreRequest) -> dict[str, HeadFunction]:
        """Load the generic model of a placed request and return its heads; {}: there is none."""
        model = self.model
        model.load(request.fixed, model.names("fixed"))
        model.load(request.broadcast, model.names("shared"))
        model.load({**self._initial, **request.private_mean}, model.names("personal"))
        return self.strategy.generic(model, request.broadcast)

    def load_own(
        self, request: ScoreRequest, client: ClientRequest
    ) -> tuple[Tensors, dict[str, HeadFunction]]:
        """Load a client's model over the generic model that is loaded.

        Returns:
            The tensors that were replaced, as they were before, and the client's heads.
        """
        personal = client.personal or {}
        broadcast = {**request.broadcast, **client.refreshed}
        own_weights = self.strategy.personal_weights(self.model, broadcast, personal)
        weights = {**client.refreshed, **own_weights}
        state = self.model.state()
        before = {name: state[name].clone() for name in weights}
        self.model.load(weights, weights)
        return before, self.strategy.personal(self.model, broadcast, personal)

    @contextmanager
    def own_model(
        self, request: ScoreRequest, client: ClientRequest
    ) -> Iterator[tuple[Tensors, dict[str, HeadFunction]]]:
        """Load a client's model as :meth:`load_own` does, for the block; then unload it."""
        before, heads = self.load_own(request, client)
        yield before, heads
        self.model.load(before, before)
