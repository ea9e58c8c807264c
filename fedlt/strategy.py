"""The contract of a federated method: a frozen dataclass with verbs for both halves.

    server   state = init(model)
    server   state.broadcast ------------------------------> every client of the cohort
    client   local_update(client): objective(client, batch), step, step, ... -> Update
    engine   total = sum over the cohort of weight * sums    (fixed order: same bits everywhere)
    server   state = aggregate(state, total)

A strategy keeps no state between calls: the server's memory is :class:`ServerState`, a client's
memory is its ``personal`` tensors. The base class is complete, and is federated averaging (McMahan
et al., AISTATS 2017, arXiv:1602.05629). A method is a subclass that overrides some verbs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from fedlt.config.ranges import Checked
from fedlt.models import LinearHead, Model
from fedlt.update import HeadFunction, ServerState, Tensors, Total, Update, prefixed, under

if TYPE_CHECKING:
    from fedlt.client import Batch, Client, ClientPlugin

__all__ = [
    "HeadFunction",
    "ServerState",
    "Strategy",
    "StrategyTraits",
    "Tensors",
    "Total",
    "Update",
    "prefixed",
    "under",
]


@dataclass(frozen=True)
class StrategyTraits:
    """Traits of a strategy that the rest of a run must know: ``traits`` of its class."""

    reduces: bool = True  # False: ``aggregate`` gets the ordered single updates instead of sums
    needs_linear_heads: bool = False  # the strategy reads the norms or biases of its heads
    takes_stream_heads: bool = False  # ... also if every stream has a head of its own
    needs_sgd: bool = False  # the strategy computes gradients from the steps of SGD
    knows: tuple[str, ...] = ()  # ... also from those of local.nesterov, local.clip: nesterov, clip
    own_weights: bool = False  # the strategy weighs its clients itself, not by their images
    with_experts: str = ""  # name of the same method for clients with experts
    reads_labels: bool = False  # a loss of the strategy's own needs one label for each image
    own_model: str = ""  # prefix of a whole model in a client's personal tensors; empty: none
    reference: str = ""  # privileged information of an oracle; empty: federated
    pools: bool = False  # a round is one task, on the images of all clients
    sends: str | None = None  # what it needs of clients beside their mean model; None: not said
    trains_once: bool = False  # a task is one call of ``client.train`` on the whole model


@dataclass(frozen=True)
class Strategy(Checked):
    """A federated method. The defaults are FedAvg with one shared linear head called ``head``."""

    traits: ClassVar[StrategyTraits] = StrategyTraits()

    @property
    def adapt_epochs(self) -> int:
        """Epochs of :meth:`adapt` over a client's data; 0: :meth:`adapt` is not called."""
        return 0

    def needs_beyond_mean(self) -> str | None:
        """Return the method's needs of clients beside the mean of their models, in words.

        "" for nothing, None if the strategy does not say. A private run releases the mean alone.
        """
        return self.traits.sends

    def refuses(self, plugin: ClientPlugin) -> str | None:
        """Return why this strategy cannot run with ``plugin``; None if it can."""
        own, other = self.traits, plugin.traits
        if own.needs_linear_heads and other.cosine_heads:
            take = f"; take {own.with_experts}" if own.with_experts and other.experts else ""
            return f"the strategy needs linear heads, the client makes cosine heads of them{take}"
        if own.needs_linear_heads and other.stream_heads and not own.takes_stream_heads:
            return "the strategy reads one linear head, the client makes one for every stream of it"
        if own.reads_labels and other.weighs_images:
            return "the strategy has a loss of its own on labels, the client weighs or mixes images"
        return None

    def note(self, plugin: ClientPlugin) -> str:
        """Return a line to show when a run with ``plugin`` starts; empty for no line."""
        return ""

    def hint(self, client: Client) -> str:
        """Return a line to show when a run starts, from a client before its first task.

        Not asked for in a private run, where no line may depend on a client's images.
        """
        return ""

    def build(self, model: Model) -> None:
        """Add this method's heads to ``model`` and declare their groups (server and clients)."""
        model.add_head("head", LinearHead(model.num_features, model.num_classes))

    def init(self, model: Model) -> ServerState:
        """Return the state before the first round (server)."""
        tensors = {name: value.clone() for name, value in model.state().items()}
        return ServerState(
            round=0,
            broadcast={name: tensors[name] for name in model.names("shared")},
            fixed={name: tensors[name] for name in model.names("fixed")},
        )

    def init_personal(self, client: Client) -> Tensors:
        """Return a client's first personal state, a pure function of (seed, cid).

        The default is the common initial value of every personal tensor of the model.
        """
        names = client.model.names("personal")
        state = client.model.state() if names else {}
        return {name: state[name].clone() for name in names}

    def local_update(self, client: Client) -> Update:
        """Return the update of one client's whole task of a round (client)."""
        return client.update(client.train(self.objective))

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss of one batch, pure in (parameters, batch, ``client.tensors``)."""
        return client.plugin.loss(client.model(batch.images), batch, client)

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the next state from the weighted sums over the cohort (server)."""
        return replace(state, broadcast={**state.broadcast, **total.mean()})

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the generic model's heads by name; the first is the primary head.

        Where the model has personal tensors, ``model`` holds their mean over the participants,
        weighted by examples: for evaluation only. A generic model that depends on personal tensors
        is marked as an average in every result. A method without a generic model returns no head.
        """
        return dict(model.heads.items())

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return one client's heads by name; the first is the primary head.

        ``model`` holds the broadcast and, on top of it, :meth:`personal_weights`.
        """
        return dict(model.heads.items())

    def personal_weights(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> Tensors:
        """Return the model tensors in which this client's model differs from the broadcast.

        If no such tensor lies in the backbone, one pass of the backbone scores all clients.
        The default is the model's personal part, or the whole model of ``traits.own_model``.
        """
        if self.traits.own_model:
            return under(self.traits.own_model, personal)
        return {name: personal[name] for name in model.names("personal")}

    def adapt(self, client: Client) -> Tensors:
        """Return the personal state to score with, fine-tuned just before scoring.

        Called if ``adapt_epochs`` is above 0. Trains ``client.model``, which holds the new
        broadcast and :meth:`personal_weights`. The result is not kept after scoring. A client that
        never took part is tuned, too, from :meth:`init_personal` and the generic model.
        """
        raise NotImplementedError(f"{type(self).__name__} has adapt_epochs and no adapt")

    def refresh(self, client: Client, *, scope: str, epochs: int) -> Tensors:
        """Return the personal state to score with, after training just before scoring.

        Args:
            client: The client; its model holds the new broadcast and :meth:`personal_weights`.
            scope: ``head`` trains the personal heads (all heads where none is personal), ``all``
                trains everything that a round trains.
            epochs: Passes over the client's data.

        Returns:
            The personal state to score with.
        """
        names = client.model.parameter_names("personal") + client.model.parameter_names("shared")
        own = [n for n in client.model.parameter_names("personal") if n.startswith("heads.")]
        heads = own or [n for n in names if n.startswith("heads.")]
        client.train(self.objective, epochs=epochs, only=heads if scope == "head" else None)
        if self.traits.own_model:
            return {**client.personal, **client.snapshot(self.traits.own_model)}
        state = client.model.state()
        return {**client.personal, **{n: state[n] for n in client.model.names("personal")}}
