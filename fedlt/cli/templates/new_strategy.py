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

    The object holds hyperparameters and nothing else: it is frozen. What the server remembers lies
    in ServerState, what a client remembers in its personal tensors. Verbs that are not here are
    those of federated averaging; all of them are in fedlt/strategy.py.
    """

    mu: NotNegative = 0.1  # a hyperparameter: its type says its range

    def local_update(self, client: Client) -> Update:
        """Do one client's whole task of a round (client).

        Train once or several times, then answer. ``client.update`` takes the shared tensors from
        the model; ``extras=`` adds sums of your own, ``personal=`` what this client keeps.
        """
        metrics = client.train(self.objective)
        return client.update(metrics)

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss of one batch (client).

        Pure in the parameters, the batch and ``client.tensors``: no ``item()``, no branch on data,
        no draw, no clock. The stacked engine calls it once for all clients.
        """
        logits = client.model(batch.images)  # (B, S, C): S streams, C classes
        loss = client.plugin.loss(logits, batch, client)  # what the file's client plugin says
        return loss + 0.5 * self.mu * client.squared_distance(client.broadcast)

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the next state from the sums over the cohort (server).

        ``total.sums`` are weighted sums, ``total.weight`` is the sum of the weights. Return new
        tensors; those of ``state`` are never written. Buffers of BatchNorm are averaged for you.
        """
        broadcast = {**state.broadcast, **total.mean()}
        return ServerState(state.round, broadcast, state.private, state.fixed)
