"""NewStrategy: federated averaging with a proximal term; change it into your own method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.config.ranges import NotNegative
from fedlt.strategy import ServerState, Strategy, Total, Update

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class NewStrategy(Strategy):
    """The loss plus mu/2 |w - w_broadcast|^2 (Li et al., MLSys 2020, eq. 2).

    The object is frozen and holds only hyperparameters. The server's memory is ServerState, a
    client's memory is its personal tensors. Verbs that are not overridden here are federated
    averaging. All verbs are in fedlt/strategy.py.
    """

    mu: NotNegative = 0.1  # a hyperparameter: the type gives the range

    def local_update(self, client: Client) -> Update:
        """Return the update of one client's whole task of a round (client).

        Train once or several times. ``client.update`` takes the shared tensors from the model;
        ``extras=`` adds further sums, ``personal=`` further tensors that this client keeps.
        """
        metrics = client.train(self.objective)
        return client.update(metrics)

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss of one batch (client).

        Pure in the parameters, the batch and ``client.tensors``: no ``item()``, no branch on data,
        no draw, no clock. The stacked engine calls the objective once for all clients.
        """
        logits = client.model(batch.images)  # (B, S, C): S streams, C classes
        loss = client.plugin.loss(logits, batch, client)  # loss of the file's client plugin
        return loss + 0.5 * self.mu * client.squared_distance(client.broadcast)

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the next state from the sums over the cohort (server).

        ``total.sums`` are weighted sums, ``total.weight`` is the sum of the weights. Return new
        tensors; never change tensors of ``state``. BatchNorm buffers are averaged for you.
        """
        broadcast = {**state.broadcast, **total.mean()}
        return ServerState(state.round, broadcast, state.private, state.fixed)
