"""One client's scratch objects, and the contract of a local-training method (client plugin)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from fedlt.batch import Batch, ClientData, Phase, Schedule, add_metrics
from fedlt.config.ranges import Checked
from fedlt.data.batches import batch_slices, make_batches
from fedlt.errors import nearest
from fedlt.losses import cross_entropy
from fedlt.models.frozen import frozen_features
from fedlt.models.modes import evaluating, set_training_modes
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
    """Yield an epoch of batches as :meth:`ClientPlugin.batches` makes them, of any images.

    Args:
        client: Its settings and keys are used, not its data.
        epoch: Of the task.
        data: The images; ``indices`` may name one several times, or not at all.

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
    """Everything one client task may read, and the scratch model that it may write."""

    cid: int
    round: int  # the global round, from 1: the only clock
    rounds: int  # rounds of the whole run
    seed: int
    model: Model  # scratch: fixed, broadcast and personal part are loaded
    broadcast: Mapping[str, Tensor]  # as received; never written: the anchor of proximal terms
    personal: Tensors  # as this client stored it; never written
    data: ClientData
    local: LocalConfig  # epochs, batch_size, lr, ...; the learning rates are those of this round
    plugin: ClientPlugin
    tensors: Tensors  # per-client tensors that an objective reads: class_counts, log_prior, ...
    trainer: Trainer  # the loop behind train, which an engine may replace
    epochs_done: int = 0  # of this task, over all calls of train: each has its own batches
    steps_done: int = 0  # likewise; a loop of a method's own adds the steps that it takes
    work: tuple[int, int] | None = None  # steps done of the whole task's; None: all of them
    asked: tuple[int, int] = (1, 1)  # clients that a round asks, and clients in the population
    material: Mapping[str, Tensor] = field(default_factory=dict)  # what the plugin's prepare made

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
        """Descend ``objective`` over this client's data.

        A backbone none of whose parameters is trained runs in evaluation mode: its BatchNorm
        statistics stay as they are.

        Args:
            objective: The mean loss of a batch.
            epochs: Passes over the data; the file's ``local.epochs`` by default.
            only: Names of the parameters to train, ``heads``, or ``body`` (all others); None: all.
            no_decay: Prefixes of parameters that get no weight decay.
            schedule: ``(step, planned steps) -> factor`` of the learning rate, steps from 0.
            ascent: Take the gradient this far uphill and apply it here: SAM's rho; 0 for plain SGD,
                the file's ``local.sam_rho`` by default.
            batches: Train on these instead of epochs of the plugin's batches.
            network: Train this network of the plugin's own instead of the model.
            optimizer: The file's ``local.optimizer`` by default.

        Returns:
            Sums over examples: ``loss``, ``examples``; and ``steps``. A task of several phases
            joins them with :func:`add_metrics`.

        Raises:
            ValueError: If ``only`` names what is no parameter, or the loss is no scalar with a
                gradient.
        """
        parameters = dict(self.model.named_parameters())
        if only in ("heads", "body"):
            only = [n for n in parameters if n.startswith("heads.") == (only == "heads")]
        chosen = set(parameters) if only is None else set(only)
        for name in chosen - set(parameters):
            raise ValueError(f"only: no parameter {name!r}{nearest(name, parameters)}")
        wanted = {n for n, p in parameters.items() if p.requires_grad}
        if network is not None:
            group = self.model.group_of
            own = (n for n in parameters if n.startswith(f"networks.{network}."))
            wanted = {name for name in own if group(name) != "fixed"}
        phase = Phase(
            objective=objective,
            epochs=self.local.epochs if epochs is None else epochs,
            trained=tuple(n for n in parameters if n in chosen & wanted),
            no_decay=no_decay,
            schedule=schedule,
            ascent=self.local.sam_rho if ascent is None else ascent,
            batches=None if batches is None else tuple(batches),
            optimizer=optimizer or self.local.optimizer,
        )
        set_training_modes(self.model, phase.trained)
        metrics = self.trainer(self, phase)
        self.steps_done += int(metrics["steps"])
        return metrics

    def planned_steps(self, epochs: int) -> int:
        """Return the steps of some epochs of plain batches: a schedule's second argument."""
        return epochs * len(batch_slices(self.data.num_examples, self.local.batch_size))

    def steps_in(self, epochs: int) -> int | None:
        """Return the steps of some epochs that ``work`` leaves, at least one; None: all of them."""
        if self.work is None:
            return None
        done, whole = self.work
        return max(1, self.planned_steps(epochs) * done // whole)

    def learning_rate(self, name: str) -> float:
        """Return the learning rate of a parameter: ``local.head_lr`` for heads, if it is set."""
        head_lr = self.local.lr if self.local.head_lr is None else self.local.head_lr
        return head_lr if name.startswith("heads.") else self.local.lr

    def batches(self, epochs: int | None = None) -> Iterator[Batch]:
        """Yield the plugin's batches of the next epochs; a client that is cut short gets fewer."""
        number = self.local.epochs if epochs is None else epochs
        start, self.epochs_done = self.epochs_done, self.epochs_done + number
        every = chain.from_iterable(self.epoch_batches(start + e) for e in range(number))
        return islice(every, self.steps_in(number))

    def epoch_batches(self, epoch: int) -> Iterator[Batch]:
        """Yield an epoch of the plugin's batches, as its loss wants to see them."""
        generator = torch_generator(self.seed, "views", self.round, self.cid, epoch)
        return self.plugin.views(self, self.plugin.batches(self, epoch), generator)

    def snapshot(self, prefix: str = "") -> Tensors:
        """Return a copy of everything in the model that is not fixed, by name after ``prefix``."""
        fixed = set(self.model.names("fixed"))
        state = self.model.state().items()
        return {f"{prefix}{name}": value.clone() for name, value in state if name not in fixed}

    def frozen_features(self, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the features (B, S, D) that another model of this architecture gives.

        Args:
            tensors: Its parameters and buffers by the model's names, such as ``client.broadcast``;
                of what they lack, this model's own are used.
            images: (B, Ch, H, W).

        Returns:
            Features without a gradient, in evaluation mode. Usable in a stacked objective.
        """
        return frozen_features(self.model, tensors, images)

    def frozen_logits(
        self, tensors: Mapping[str, Tensor], images: Tensor, *, head: str = "head"
    ) -> Tensor:
        """Return the logits (B, S, C) of another model's head: see :meth:`frozen_features`."""
        features = self.frozen_features(tensors, images)
        with torch.no_grad():
            own = under(f"heads.{head}.", tensors)
            logits: Tensor = functional_call(self.model.heads[head], own, (features,))
            return logits

    def frozen_network(self, name: str, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return what a network of the plugin's own gives, without a gradient, evaluating.

        ``batches`` may call it: with ``{**client.broadcast, **client.personal}`` it is the network
        as it was received.

        Args:
            name: The network's.
            tensors: As in :meth:`frozen_features`.
            images: (B, Ch, H, W).
        """
        network, own = self.model.networks[name], under(f"networks.{name}.", tensors)
        with evaluating(network), torch.no_grad():
            output: Tensor = functional_call(network, own, (images,))
        return output

    def keep_start(self) -> None:
        """Keep the personal part of the model as it is now, before training: see :meth:`start`."""
        state = self.model.state()
        self.tensors |= {f"start.{n}": state[n].clone() for n in self.model.names("personal")}

    def start(self) -> Tensors:
        """Return the model as received, with the personal part that :meth:`keep_start` kept."""
        return {**self.broadcast, **under("start.", self.tensors)}

    def inner_product(self, direction: Mapping[str, Tensor]) -> Tensor:
        """Return <w, direction> over the trainable parameters that ``direction`` names.

        Added to a loss it adds ``direction`` to the gradient.
        """
        return torch.stack([(w * direction[n]).sum() for n, w in self._named_in(direction)]).sum()

    def squared_distance(self, anchor: Mapping[str, Tensor]) -> Tensor:
        """Return |w - anchor|^2 over the trainable parameters that ``anchor`` names."""
        squares = [(w - anchor[n]).square().sum() for n, w in self._named_in(anchor)]
        return torch.stack(squares).sum()

    def _named_in(self, tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        parameters = self.model.named_parameters()
        return [(name, w) for name, w in parameters if name in tensors and w.requires_grad]

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
        """Return this client's answer from the scratch model as it stands.

        The tensors are live: the engine copies or reduces them before the next task.

        Args:
            metrics: What :meth:`train` returned, or sums of one's own. ``personal_steps`` says how
                many of the ``steps`` made the personal part, if not all.
            extras: Further tensors to be summed over the cohort.
            personal: Further tensors that this client keeps, besides the model's personal part.
            plain: Further tensors to be summed over the cohort without the weight.
            weight: The weight in the sums, 1 for plain means; the number of examples by default. A
                client without images has the weight 0, whatever is given.
            shared: What to answer instead of the model's shared tensors, by their names: a
                :meth:`snapshot` from before another phase, or steps. Others are not read.
            is_step: The shared parameters are answered as steps from the broadcast: ``aggregate``
                adds them to its state. Faults and diagnostics measure them from zero.

        Raises:
            ValueError: If a weight is given that is not above 0.
        """
        if weight is not None and weight <= 0:
            raise ValueError(f"update: weight {weight} is not above 0")
        state = self.model.state()
        integers = set(self.model.integer_names())
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
    """What the rest of a run must know about a client plugin: ``traits`` of its class."""

    needs_global_prior: bool = False  # ``prior.source: own`` is refused
    cosine_heads: bool = False  # ``build`` makes every head a cosine head, without a bias
    stream_heads: bool = False  # ``build`` gives each stream a head: weights (S, C, D)
    normed_features: bool = False  # features have norm sqrt(D), and both signs
    no_decay: tuple[str, ...] = ()  # prefixes of parameters without weight decay
    experts: bool = False  # ``build`` splits the backbone; each stream has a cosine head
    masks_absent: bool = False  # with ``prior.use: local_masked`` one class alone has the loss 0
    weighs_images: bool = False  # batches or views have weights, or mixed labels
    per_image: bool = False  # the loss is a mean over images of logits and labels
    control: Mapping[str, object] = field(default_factory=dict)  # options of a control run, if any


@dataclass(frozen=True)
class ClientPlugin(Checked):
    """A local-training method. The defaults are plain cross-entropy on plain batches.

    One that overrides ``batches`` is a data plugin, one that overrides ``build``, ``views``,
    ``loss`` or ``predict`` a loss plugin; a file may name one of each (fedlt.methods.composition).
    """

    traits: ClassVar[PluginTraits] = PluginTraits()
    reference: ClassVar[str] = ""  # why this reference point is not federated; empty: it is

    @property
    def parts(self) -> tuple[ClientPlugin, ...]:
        """The plugins that this one is made of."""
        return (self,)

    def prepare(self, preparation: Preparation) -> Mapping[str, NDArray[np.generic]]:
        """Return what is made once for all clients, before a run: ``client.material``.

        Args:
            preparation: The federation before its first round.

        Raises:
            FedltError: If it cannot be had.
        """
        return {}

    def note(self, config: Config) -> str:
        """Return a line that is shown when a run starts; empty: none."""
        return ""

    def build(self, model: Model) -> None:
        """Add experts, tokens or other streams to ``model``, before the strategy's ``build``.

        Another network that the method needs, such as a teacher, comes by ``model.add_network``.
        """

    def train_networks(self, client: Client) -> dict[str, float]:
        """Train what ``build`` added by ``add_network``, before the strategy's ``local_update``.

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
        """Yield what the loss sees of each batch: further views, see :meth:`Batch.viewed`.

        Args:
            client: The client.
            batches: One epoch's, from ``batches``, in order; not changed. They are taken one at a
                time: a curriculum may read the model between two.
            generator: Keyed by (seed, round, cid, epoch), for every draw.
        """
        return batches

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean loss of ``logits`` (B, S, C)."""
        return cross_entropy(logits, batch.labels)

    def label_weights(self, client: Client) -> Tensor | None:
        """Return the weights w (C,) of a ``per_image`` loss that is divided by their sum.

        Such a loss is ``sum_i w[y_i] l_i / sum_i w[y_i]``; None: it is a plain mean over images. A
        data plugin that weighs or mixes images needs to know which.
        """
        return None

    def predict(self, logits: Tensor) -> Tensor:
        """Fuse the streams: (B, S, C) -> (B, C). The default is their mean."""
        return logits.mean(dim=1)
