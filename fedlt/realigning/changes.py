"""What can be done to a trained linear head, each method a frozen dataclass of its constants.

Closed forms need no data. The others learn on features of a frozen backbone: their client half runs
in rounds (``federated``), or once on everybody's images (``pooled``). Formulas are in
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
    """Return a constant as it stands in a table or a file name."""
    return value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True)
class Realignment(Checked):
    """A method and its constants."""

    name: ClassVar[str] = ""
    moves_bias: ClassVar[bool] = False  # it needs a head that has one
    reads_local: ClassVar[bool] = False  # a client's local head gives the personal model its norms

    def constants(self) -> dict[str, Any]:
        """Return the constants by name: numbers and words."""
        return asdict(self)


@dataclass(frozen=True)
class ClosedForm(Realignment):
    """A function of the head, and perhaps of a class prior."""

    @abstractmethod
    def realign(self, head: Head, class_counts: Tensor) -> Head:
        """Return the new head.

        Args:
            head: ``weight`` (C, D) and ``bias`` (C,); not written.
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
    tau: NotNegative = 1.0

    def realign(self, head: Head, class_counts: Tensor) -> Head:
        """Return the head with another bias."""
        return {**head, "bias": adjusted_bias(head["bias"], class_counts, self.tau)}


@dataclass(frozen=True)
class Learner(Realignment):
    """A method that learns on features: rows (N, D) with labels (N,)."""

    once: ClassVar[bool] = False  # one round is all there is
    epochs: Whole = 10  # passes over the features, in each round
    lr: Positive = 0.1
    batch_size: Count = 32

    def settings(self, *, balanced: bool) -> ProbeSettings:
        """Return how a head is trained."""
        return ProbeSettings(self.epochs, self.lr, self.batch_size, balanced=balanced)

    @abstractmethod
    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Return what the server sends in the first round: the mean of the answers, later."""

    @abstractmethod
    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Return what a client answers: tensors to be averaged by examples, tensors to be added.

        Args:
            head: As trained; not written.
            sent: By the server; not written.
            rows: The client's features (N, D) and labels (N,), at least one.
            generator: CPU generator of the order.
        """

    @abstractmethod
    def finish(self, head: Head, mean: Tensors, total: Tensors, generator: torch.Generator) -> Head:
        """Return the new head from the last round's mean and sum."""


@dataclass(frozen=True)
class Crt(Learner):
    """Classifier re-training (cRT): a new head, class-balanced sampling, backbone frozen."""

    name: ClassVar[str] = "crt"
    moves_bias: ClassVar[bool] = True

    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Draw the head anew."""
        classes, features = head["weight"].shape
        return draw_head(features, classes, generator)

    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Train the head on class-balanced batches."""
        return train_head(sent, *rows, self.settings(balanced=True), generator), {}

    def finish(self, head: Head, mean: Tensors, total: Tensors, generator: torch.Generator) -> Head:
        """Return the retrained head."""
        return mean


@dataclass(frozen=True)
class Lws(Learner):
    """Learnable weight scaling (LWS): one factor a class, class-balanced sampling, rest frozen."""

    name: ClassVar[str] = "lws"

    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Begin with factors of one."""
        return {"scales": torch.ones(len(head["weight"]))}

    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Train factors of the head as scaled so far."""
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
        """Return the constants as what is done with the statistics."""
        return Calibration(**self.constants())

    def start(self, head: Head, generator: torch.Generator) -> Tensors:
        """Send nothing."""
        return {}

    def answer(
        self, head: Head, sent: Tensors, rows: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensors, Tensors]:
        """Return counts, sums and second moments of the features by class."""
        return {}, ClassSums.of(*rows, len(head["weight"]), self.covariance).tensors()

    def finish(self, head: Head, mean: Tensors, total: Tensors, generator: torch.Generator) -> Head:
        """Draw features and train the head on them."""
        return self.calibration().calibrate(head, ClassSums.from_tensors(total), generator)


METHODS: dict[str, type[Realignment]] = {
    cls.name: cls for cls in (GlaFr, TauNorm, PostHocAdjustment, Lws, Crt, Ccvr)
}
