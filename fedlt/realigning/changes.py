"""Methods that change a trained linear head, each a frozen dataclass of its constants.

Closed forms need no data. The other methods learn on features of a frozen backbone: their client
half runs in rounds (``federated``), or once on all clients' images (``pooled``). Formulas are in
:mod:`fedlt.models.realign`, :mod:`fedlt.models.linear_probe` and
:mod:`fedlt.models.calibration`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedlt.config.ranges import Checked, Count, NotNegative, Positive, ShareBelowOne, Whole
from fedlt.models.calibration import Allocation, Calibration, Covariance
from fedlt.models.class_statistics import ClassSums
from fedlt.models.linear_probe import Head, ProbeSettings, draw_head, train_head, train_scales
from fedlt.models.realign import adjusted_bias, global_realign, scaled_rows, tau_norm
from fedlt.strategy import Tensors


def spelt(value: float | str) -> str:
    """Return the text of a constant for a table or a file name."""
    return value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True)
class Realignment(Checked):
    """Method that changes a linear head, with its constants."""

    name: ClassVar[str] = ""
    moves_bias: ClassVar[bool] = False  # the method needs a head with a bias
    reads_local: ClassVar[bool] = (
        False  # a client's local head sets the norms of its personal model
    )
    reads_clients: ClassVar[bool] = False  # images or class counts of clients, without noise

    def constants(self) -> dict[str, Any]:
        """Return the constants (numbers and words) by name."""
        return asdict(self)


@dataclass(frozen=True)
class ClosedForm(Realignment):
    """Method that is a function of the head and, for some, of a class prior."""

    @abstractmethod
    def realign(self, head: Head, class_counts: Tensor) -> Head:
        """Return the new head.

        Args:
            head: ``weight`` (C, D) and ``bias`` (C,); not changed.
            class_counts: (C,) images behind the prior.
        """


@dataclass(frozen=True)
class GlaFr(ClosedForm):
    """GLA-FR of FedLoGe: all class vectors get the norm ``scale``; LA-FR where heads are local."""

    name: ClassVar[str] = "gla_fr"
    reads_local: ClassVar[bool] = True
    scale: Positive = 1.0

    def realign(self, head: Head, class_counts: Tensor) -> Head:
        """Return the head with equal norms."""
        return {**head, "weight": global_realign(head["weight"], self.scale)}


@dataclass(frozen=True)
class TauNorm(ClosedForm):
    """Tau-normalisation: class vectors over their norm to the power ``tau``."""

    name: ClassVar[str] = "tau_norm"
    tau: NotNegative = 1.0

    def realign(self, head: Head, class_counts: Tensor) -> Head:
        """Return the head with flattened norms."""
        return {**head, "weight": tau_norm(head["weight"], self.tau)}


@dataclass(frozen=True)
class PostHocAdjustment(ClosedForm):
    """Post-hoc logit adjustment: ``tau`` times the log prior is taken out of the bias."""

    name: ClassVar[str] = "logit_adjustment"
    moves_bias: ClassVar[bool] = True
    reads_clients: ClassVar[bool] = True
    tau: NotNegative = 1.0

    def realign(self, head: Head, class_counts: Tensor) -> Head:
        """Return the head with another bias."""
        return {**head, "bias": adjusted_bias(head["bias"], class_counts, self.tau)}


@dataclass(frozen=True)
class Learner(Realignment):
    """Method that learns on features: rows (N, D) with labels (N,)."""

    reads_clients: ClassVar[bool] = True
    once: ClassVar[bool] = False  # the method has exactly one round
    epochs: Whole = 10  # passes over the features, in each round
    lr: Positive = 0.1
    batch_size: Count = 32

    def settings(self, *, balanced: bool) -> ProbeSettings:
        """Return the settings for training a head."""
        return ProbeSettings(self.epochs, self.lr, self.batch_size, balanced=balanced)

    @abstractmethod
    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Return the tensors sent in the first round; later rounds send the mean of the answers."""

    @abstractmethod
    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Return a client's answer: tensors to be averaged by examples, and tensors to be added.

        Args:
            head: The trained head; not changed.
            sent: The tensors from the server; not changed.
            rows: The client's features (N, D) and labels (N,), at least one.
            generator: CPU generator that draws the order of rows.
        """

    @abstractmethod
    def finish(self, head: Head, mean: Tensors, total: Tensors, generator: torch.Generator) -> Head:
        """Return the new head from mean and sum of the last round's answers."""


@dataclass(frozen=True)
class Crt(Learner):
    """Classifier re-training (cRT): a new head, class-balanced sampling, backbone frozen."""

    name: ClassVar[str] = "crt"
    moves_bias: ClassVar[bool] = True

    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Return a newly drawn head."""
        classes, features = head["weight"].shape
        return draw_head(features, classes, generator)

    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Return the head after training on class-balanced batches."""
        return train_head(sent, *rows, self.settings(balanced=True), generator), {}

    def finish(self, head: Head, mean: Tensors, total: Tensors, generator: torch.Generator) -> Head:
        """Return the retrained head."""
        return mean


@dataclass(frozen=True)
class Lws(Learner):
    """Learnable weight scaling (LWS): one factor a class, class-balanced sampling, rest frozen."""

    name: ClassVar[str] = "lws"

    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Return factors of one."""
        return {"scales": torch.ones(len(head["weight"]))}

    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Return the factors after training on class-balanced batches."""
        scaled = {**head, "weight": scaled_rows(head["weight"], sent["scales"])}
        factors = train_scales(scaled, *rows, self.settings(balanced=True), generator)
        return {"scales": sent["scales"] * factors}, {}

    def finish(self, head: Head, mean: Tensors, total: Tensors, generator: torch.Generator) -> Head:
        """Return the scaled head."""
        return {**head, "weight": scaled_rows(head["weight"], mean["scales"])}


@dataclass(frozen=True)
class Ccvr(Learner):
    """CCVR: the head trained on features drawn from one Gaussian a class (Luo et al., 2021)."""

    name: ClassVar[str] = "ccvr"
    moves_bias: ClassVar[bool] = True
    once: ClassVar[bool] = True
    epochs: Whole = Calibration.epochs
    lr: Positive = Calibration.lr
    batch_size: Count = Calibration.batch_size
    momentum: ShareBelowOne = Calibration.momentum
    per_class: Count = Calibration.per_class  # features drawn of each class, on average
    allocation: Allocation = Calibration.allocation  # equal, or in proportion to a class's images
    covariance: Covariance = Calibration.covariance

    def calibration(self) -> Calibration:
        """Return the constants as the settings of a calibration."""
        return Calibration(**self.constants())

    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Return no tensors."""
        return {}

    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Return counts, sums and second moments of the features by class."""
        return {}, ClassSums.of(*rows, len(head["weight"]), self.covariance).tensors()

    def finish(self, head: Head, mean: Tensors, total: Tensors, generator: torch.Generator) -> Head:
        """Return the head trained on features drawn from the Gaussians."""
        return self.calibration().calibrate(head, ClassSums.from_tensors(total), generator)


METHODS: dict[str, type[Realignment]] = {
    cls.name: cls for cls in (GlaFr, TauNorm, PostHocAdjustment, Lws, Crt, Ccvr)
}
