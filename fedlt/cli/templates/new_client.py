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

    The object holds hyperparameters and nothing else: it is frozen. Verbs that are not here are
    those of plain cross-entropy; all of them are in fedlt/client.py: ``build`` adds streams to the
    model, ``batches`` yields the data, ``predict`` fuses the streams.
    """

    gamma: NotNegative = 2.0  # a hyperparameter: its type says its range

    def setup(self, client: Client) -> None:
        """Put what the loss reads of a client into ``client.tensors``, before its task.

        ``class_counts`` (C,) and ``log_prior`` (C,) are there already. Of the client itself a loss
        reads nothing else, so that the stacked engine can call it once for all clients.
        """
        counts = client.tensors["class_counts"]
        client.tensors["held"] = (counts > 0).float()  # (C,): 1 where this client has images

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean loss of ``logits`` (B, S, C), over the classes that the client has.

        No ``item()``, no branch on data, no boolean mask as an index.
        """
        absent = 1 - client.tensors["held"]  # (C,)
        log_p = (logits - 1e4 * absent).log_softmax(dim=-1)  # (B, S, C)
        index = batch.labels[:, None, None].expand(-1, logits.shape[1], 1)
        log_p = log_p.gather(-1, index)  # (B, S, 1): log-probability of the true class
        return -((1 - log_p.exp()) ** self.gamma * log_p).mean()
