"""Client plugins: one local-training method per file. This table is the only registry."""

from __future__ import annotations

from clients.balanced_softmax import BalancedSoftmax
from clients.class_balanced import ClassBalanced
from clients.cross_entropy import CrossEntropy
from clients.deit_lt import DeitLT
from clients.fedir import FedIR
from clients.fedlc import FedLC
from clients.fedyoyo import FedYoYo
from clients.focal import Focal
from clients.ldam_drw import LdamDrw
from clients.logit_adjustment import LogitAdjustment
from fedlt.client import ClientPlugin

__all__ = [
    "CLIENTS",
    "BalancedSoftmax",
    "ClassBalanced",
    "CrossEntropy",
    "DeitLT",
    "FedIR",
    "FedLC",
    "FedYoYo",
    "Focal",
    "LdamDrw",
    "LogitAdjustment",
]

CLIENTS: dict[str, type[ClientPlugin]] = {
    "balanced_softmax": BalancedSoftmax,
    "class_balanced": ClassBalanced,
    "cross_entropy": CrossEntropy,
    "deit_lt": DeitLT,
    "fedir": FedIR,
    "fedlc": FedLC,
    "fedyoyo": FedYoYo,
    "focal": Focal,
    "ldam_drw": LdamDrw,
    "logit_adjustment": LogitAdjustment,
}
