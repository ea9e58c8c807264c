"""NewClient: a focal loss; change it into your own local-training method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin
from fedlt.config.ranges import NotNegative

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class NewClient(ClientPlugin):
    """Cross-entropy times (1 - p)^gamma (Lin et al., ICCV 2017, eq. 5).

    The object is frozen and holds only hyperparameters. Verbs that are not overridden here are
    plain cross-entropy. All verbs are in fedlt/client.py: ``build`` adds streams to the model,
    ``batches`` yields the data, ``predict`` fuses the streams.
    """

    gamma: NotNegative = 2.0  # a hyperparameter: the type gives the range

    def setup(self, client: Client) -> None:
        """Put the client's values for the loss into ``client.tensors``, before the client's task.

        ``class_counts`` (C,) and ``log_prior`` (C,) are there already. A loss reads no other values
        of the client, so that the stacked engine can call the loss once for all clients.
        """
        counts = client.tensors["class_counts"]
        client.tensors["held"] = (counts > 0).float()  # (C,): 1 if the client has images

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean loss of ``logits`` (B, S, C), over the classes that the client holds.

        No ``item()``, no branch on data, no boolean mask as an index.
        """
        absent = 1 - client.tensors["held"]  # (C,)
        log_p = (logits - 1e4 * absent).log_softmax(dim=-1)  # (B, S, C)
        index = batch.labels[:, None, None].expand(-1, logits.shape[1], 1)
        log_p = log_p.gather(-1, index)  # (B, S, 1): log-probability of the true class
        return -((1 - log_p.exp()) ** self.gamma * log_p).mean()
