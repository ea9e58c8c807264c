"""Client in a task, and the contract of a local-training method (client plugin)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from fedlt.config.ranges import Checked
from fedlt.data.batches import batch_slices, make_batches
from fedlt.losses import cross_entropy
from fedlt.models.frozen import frozen_features
from fedlt.models.modes import chosen_names, evaluating, set_training_modes
from fedlt.optim.batch import Batch, ClientData, Phase, Schedule, add_metrics
from fedlt.rng import torch_generator
from fedlt.update import Tensors, Update, under

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedlt.config import Config, LocalConfig
    from fedlt.data.preparation import Preparation
    from fedlt.models import Model

__all__ = [
    "Batch",
    "Client",
    "ClientData",
    "ClientPlugin",
    "Objective",
    "PluginTraits",
    "add_metrics",
    "batches_with_rows",
]

Objective = Callable[["Client", Batch], Tensor]
Trainer = Callable[["Client", Phase], dict[str, float]]  # the loop behind Client.train


def batches_with_rows(
    client: Client, epoch: int, data: ClientData
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch of batches like :meth:`ClientPlugin.batches`, of any images.

    Args:
        client: The client, for its settings and random keys; its data are not used.
        epoch: The epoch of the task.
        data: The images; ``indices`` may repeat or leave out images.

    Yields:
        Images (B, Ch, H, W), and their positions (B,) in ``data.images``.
    """
    yield from make_batches(
        data.images,
        data.indices,
        batch_size=client.local.batch_size,
        augment=client.local.augment,
        mean=data.mean,
        std=data.std,
        generator=torch_generator(client.seed, "batches", client.round, client.cid, epoch),
    )


@dataclass
class Client:
    """Client in a task: everything the task may read, and the scratch model to write."""

    cid: int
    round: int  # the global round, from 1: the only clock
    rounds: int  # rounds of the whole run
    seed: int
    model: Model  # scratch: fixed, broadcast and personal part are loaded
    broadcast: Mapping[str, Tensor]  # as received; never written: the anchor of proximal terms
    personal: Tensors  # as stored by this client; never written
    data: ClientData
    local: LocalConfig  # epochs, batch_size, lr, ...; with the learning rates of this round
    plugin: ClientPlugin
    tensors: Tensors  # per-client tensors that an objective reads: class_counts, log_prior, ...
    trainer: Trainer  # the loop behind train, which an engine may replace
    epochs_done: int = 0  # of this task, over all calls of train: each epoch has its own batches
    steps_done: int = 0  # likewise; a method with a loop of its own adds its steps
    work: tuple[int, int] | None = None  # steps done of the whole task's; None: all steps
    draws: int | None = None  # times that `sampling: by_size` drew this client; None: uniform
    asked: tuple[int, int] = (1, 1)  # clients that a round asks, and clients in the population
    material: Mapping[str, Tensor] = field(default_factory=dict)  # result of the plugin's prepare

    def train(
        self,
        objective: Objective,
        *,
        epochs: int | None = None,
        only: Iterable[str] | Literal["heads", "body"] | None = None,
        no_decay: tuple[str, ...] = (),
        schedule: Schedule | None = None,
        ascent: float | None = None,
        batches: Iterable[Batch] | None = None,
        network: str | None = None,
        optimizer: Literal["sgd", "adamw"] | None = None,
    ) -> dict[str, float]:
        """Return the training metrics after minimising ``objective`` on this client's data.

        A backbone without trained parameters evaluates: its BatchNorm statistics stay unchanged.
        If ``only`` names nothing but frozen parts of the backbone, no step is taken.

        Args:
            objective: The mean loss of a batch.
            epochs: Passes over the data; None: the file's ``local.epochs`` or ``local.steps``.
            only: Names of the parameters to train, ``heads``, or ``body`` (no heads); None: all.
            no_decay: Prefixes of parameters that get no weight decay.
            schedule: ``(step, planned steps) -> factor`` of the learning rate, steps from 0.
            ascent: Rho of SAM, a distance uphill; 0: plain steps; ``local.sam_rho`` by default.
            batches: Batches to train on instead of epochs of the plugin's batches.
            network: Name of a network of the plugin to train instead of the model.
            optimizer: The optimiser; ``local.optimizer`` by default.

        Returns:
            Sums over examples, ``loss`` and ``examples``; ``steps``. See :func:`add_metrics`.

        Raises:
            ValueError: If a name of ``only`` is unknown, or the loss is no scalar with a gradient.
        """
        phase = Phase(
            objective=objective,
            epochs=epochs,
            trained=chosen_names(self.model, only, network),
            no_decay=no_decay,
            schedule=schedule,
            ascent=self.local.sam_rho if ascent is None else ascent,
            batches=None if batches is None else tuple(batches),
            optimizer=optimizer or self.local.optimizer,
        )
        if only is not None and not phase.trained and self.model.frozen_parts():
            return {"loss": 0.0, "examples": 0.0, "steps": 0.0}
        set_training_modes(self.model, phase.trained)
        metrics = self.trainer(self, phase)
        self.steps_done += int(metrics["steps"])
        return metrics

    def planned_steps(self, epochs: int | None = None) -> int:
        """Return the steps in ``epochs`` of plain batches, or in the whole task."""
        batches = len(batch_slices(self.data.num_examples, self.local.batch_size))
        return self.local.task_steps(batches) if epochs is None else epochs * batches

    def steps_in(self, epochs: int | None = None) -> int | None:
        """Return the steps a straggler takes in ``epochs`` passes (at least 1); None: no limit."""
        if self.work is None:
            return None
        done, whole = self.work
        return max(1, self.planned_steps(epochs) * done // whole)

    def learning_rate(self, name: str) -> float:
        """Return the learning rate of a parameter: ``local.head_lr`` for heads, if it is set."""
        head_lr = self.local.lr if self.local.head_lr is None else self.local.head_lr
        return head_lr if name.startswith("heads.") else self.local.lr

    def batches(self, epochs: int | None = None) -> Iterator[Batch]:
        """Yield the plugin's batches of epochs, or of the whole task; fewer for a straggler."""
        number = self.local.epochs if epochs is None else epochs
        if number is None:
            limit = self.steps_in() or self.local.steps
            return islice(chain.from_iterable(self._endless_epochs()), limit)
        start, self.epochs_done = self.epochs_done, self.epochs_done + number
        every = chain.from_iterable(self.epoch_batches(start + e) for e in range(number))
        return islice(every, self.steps_in(number))

    def _endless_epochs(self) -> Iterator[Iterator[Batch]]:
        """Yield epochs of batches, up to an epoch without a batch."""
        while True:
            self.epochs_done += 1
            epoch = self.epoch_batches(self.epochs_done - 1)
            if (first := next(epoch, None)) is None:
                return
            yield chain((first,), epoch)

    def epoch_batches(self, epoch: int) -> Iterator[Batch]:
        """Yield an epoch of the plugin's batches, as views for the plugin's loss."""
        generator = torch_generator(self.seed, "views", self.round, self.cid, epoch)
        return self.plugin.views(self, self.plugin.batches(self, epoch), generator)

    def snapshot(self, prefix: str = "") -> Tensors:
        """Return a copy of all model tensors that are not fixed, by name after ``prefix``."""
        fixed = set(self.model.names("fixed"))
        state = self.model.state().items()
        return {f"{prefix}{name}": value.clone() for name, value in state if name not in fixed}

    def frozen_features(self, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the features (B, S, D) of another model of this architecture.

        Args:
            tensors: Parameters and buffers of the other model by name, such as
                ``client.broadcast``; missing tensors are taken from this model.
            images: (B, Ch, H, W).

        Returns:
            Features without a gradient, in evaluation mode. Usable in a stacked objective.
        """
        return frozen_features(self.model, tensors, images)

    def frozen_logits(
        self, tensors: Mapping[str, Tensor], images: Tensor, *, head: str = "head"
    ) -> Tensor:
        """Return the logits (B, S, C) of another model's head, see :meth:`frozen_features`."""
        features = self.frozen_features(tensors, images)
        with torch.no_grad():
            own = under(f"heads.{head}.", tensors)
            logits: Tensor = functional_call(self.model.heads[head], own, (features,))
            return logits

    def frozen_network(self, name: str, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the output of a network of the plugin, in evaluation mode without a gradient.

        ``batches`` may call this method: ``{**client.broadcast, **client.personal}`` gives the
        network as received.

        Args:
            name: The network's name.
            tensors: As in :meth:`frozen_features`.
            images: (B, Ch, H, W).
        """
        network, own = self.model.networks[name], under(f"networks.{name}.", tensors)
        with evaluating(network), torch.no_grad():
            output: Tensor = functional_call(network, own, (images,))
        return output

    def keep_start(self) -> None:
        """Store the model's personal part before training, for :meth:`start`."""
        state = self.model.state()
        self.tensors |= {f"start.{n}": state[n].clone() for n in self.model.names("personal")}

    def start(self) -> Tensors:
        """Return the model as received, with the personal part stored by :meth:`keep_start`."""
        return {**self.broadcast, **under("start.", self.tensors)}

    def inner_product(self, direction: Mapping[str, Tensor]) -> Tensor:
        """Return <w, direction> over the trainable parameters that ``direction`` names.

        As a term of a loss, the product adds ``direction`` to the gradient.
        """
        return torch.stack([(w * direction[n]).sum() for n, w in self._named_in(direction)]).sum()

    def squared_distance(self, anchor: Mapping[str, Tensor]) -> Tensor:
        """Return |w - anchor|^2 over the trainable parameters that ``anchor`` names."""
        squares = [(w - anchor[n]).square().sum() for n, w in self._named_in(anchor)]
        return torch.stack(squares).sum()

    def _named_in(self, given: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        return [(n, w) for n, w in self.model.named_parameters() if n in given and w.requires_grad]

    def update(
        self,
        metrics: dict[str, float],
        *,
        extras: Tensors | None = None,
        personal: Tensors | None = None,
        plain: Tensors | None = None,
        weight: float | None = None,
        shared: Mapping[str, Tensor] | None = None,
        is_step: bool = False,
    ) -> Update:
        """Return this client's update from the current scratch model.

        The tensors are live: the engine copies or reduces them before the next task.

        Args:
            metrics: The result of :meth:`train`, or other sums. ``personal_steps`` is the number
                of ``steps`` that trained the personal part, if not all.
            extras: Further tensors to be summed over the cohort.
            personal: Further tensors that this client keeps, besides the model's personal part.
            plain: Further tensors to be summed over the cohort without the weight.
            weight: The weight in the sums, 1 for plain means; the number of examples by default. A
                client without images has the weight 0, whatever is given.
            shared: Tensors to send instead of the model's shared tensors, by name: a
                :meth:`snapshot` from before another phase, or steps. Other names are ignored.
            is_step: True if shared parameters are sent as steps from the broadcast: ``aggregate``
                adds the steps to its state. Faults and diagnostics measure steps from zero.

        Raises:
            ValueError: If a weight is given that is not above 0.
        """
        if weight is not None and weight <= 0:
            raise ValueError(f"update: weight {weight} is not above 0")
        state, integers = self.model.state(), set(self.model.integer_names())
        answer = state if shared is None else shared
        sums = {n: answer[n] for n in self.model.names("shared") if n not in integers}
        own = {n: state[n] for n in self.model.names("personal")}
        size = self.data.num_examples
        return Update(
            sums={**sums, **(extras or {})},
            weight=float(size) if weight is None or size == 0 else weight,
            metrics=metrics,
            personal={**own, **(personal or {})},
            plain=plain or {},
            is_step=is_step,
        )


@dataclass(frozen=True)
class PluginTraits:
    """Traits of a client plugin that the rest of a run must know: ``traits`` of its class."""

    needs_global_prior: bool = False  # ``prior.source: own`` is refused
    cosine_heads: bool = False  # ``build`` makes every head a cosine head, without a bias
    stream_heads: bool = False  # ``build`` gives each stream a head: weights (S, C, D)
    normed_features: bool = False  # features have norm sqrt(D), and both signs
    no_decay: tuple[str, ...] = ()  # prefixes of parameters without weight decay
    experts: bool = False  # ``build`` splits the backbone; each stream has a cosine head
    masks_absent: bool = False  # with ``prior.use: local_masked`` one class alone has the loss 0
    weighs_images: bool = False  # batches or views have weights, or mixed labels
    views_images: bool = False  # views are made by image operations: feature vectors are refused
    per_image: bool = False  # the loss is a mean over images of logits and labels
    control: Mapping[str, object] = field(default_factory=dict)  # options of a control run, if any


@dataclass(frozen=True)
class ClientPlugin(Checked):
    """A local-training method. The defaults are plain cross-entropy on plain batches.

    A data plugin overrides ``batches``; a loss plugin overrides ``build``, ``views``, ``loss`` or
    ``predict``. A file may name one plugin of each kind (fedlt.methods.composition).
    """

    traits: ClassVar[PluginTraits] = PluginTraits()
    reference: ClassVar[str] = ""  # privileged information of an oracle; empty: federated

    @property
    def parts(self) -> tuple[ClientPlugin, ...]:
        """Plugins that this plugin is composed of."""
        return (self,)

    def prepare(self, preparation: Preparation) -> Mapping[str, NDArray[np.generic]]:
        """Return arrays made once for all clients before a run, read as ``client.material``.

        Args:
            preparation: The federation before its first round.

        Raises:
            FedltError: If the arrays cannot be made.
        """
        return {}

    def note(self, config: Config) -> str:
        """Return a line to show when a run starts; empty for no line."""
        return ""

    def build(self, model: Model) -> None:
        """Add experts, tokens or other streams to ``model``, before the strategy's ``build``.

        A further network, such as a teacher, is added by ``model.add_network``.
        """

    def train_networks(self, client: Client) -> dict[str, float]:
        """Train networks added by ``build``, before the strategy's ``local_update``.

        Returns:
            Further metrics, each a mean over the client's images; every client has the same names.
        """
        return {}

    def setup(self, client: Client) -> None:
        """Put per-client tensors into ``client.tensors`` before the task starts."""

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch of batches, keyed by (seed, round, cid, epoch)."""
        for images, rows in batches_with_rows(client, epoch, client.data):
            yield Batch(images, client.data.labels[rows], origin=(client.data.images, rows))

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield the views of each batch for the loss, see :meth:`Batch.viewed`.

        Args:
            client: The client.
            batches: The batches of one epoch from ``batches``, in order; not changed. Batches are
                taken one at a time, since a curriculum may read the model in between.
            generator: Generator for every draw, keyed by (seed, round, cid, epoch).
        """
        return batches

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean loss of ``logits`` (B, S, C)."""
        return cross_entropy(logits, batch.labels)

    def label_weights(self, client: Client) -> Tensor | None:
        """Return the weights w (C,) of a ``per_image`` loss that is divided by their sum.

        Such a loss is ``sum_i w[y_i] l_i / sum_i w[y_i]``; None: the loss is a plain mean over
        images. A data plugin that weighs or mixes images needs these weights.
        """
        return None

    def predict(self, logits: Tensor) -> Tensor:
        """Return fused logits (B, C) of the streams' logits (B, S, C): by default their mean."""
        return logits.mean(dim=1)
