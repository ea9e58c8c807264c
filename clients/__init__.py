"""Client plugins: one local-training method per file. This table is the only registry."""

from __future__ import annotations

from clients.balanced_softmax import BalancedSoftmax
from clients.class_balanced import ClassBalanced
from clients.class_balanced_sampling import ClassBalancedSampling
from clients.cross_entropy import CrossEntropy
from clients.deit_lt import DeitLT
from clients.discl import DisCL
from clients.equalisation import Equalisation
from clients.fedir import FedIR
from clients.fedlc import FedLC
from clients.fedyoyo import FedYoYo
from clients.focal import Focal
from clients.infobatch import InfoBatch
from clients.ldam_drw import LdamDrw
from clients.logit_adjustment import LogitAdjustment
from clients.mdcs import Mdcs
from clients.mixup import Mixup
from clients.score_facility_location import ScoreFacilityLocation
from clients.score_graph_cut import ScoreGraphCut
from clients.square_root_sampling import SquareRootSampling
from fedlt.client import ClientPlugin

__all__ = [
    "CLIENTS",
    "BalancedSoftmax",
    "ClassBalanced",
    "ClassBalancedSampling",
    "CrossEntropy",
    "DeitLT",
    "DisCL",
    "Equalisation",
    "FedIR",
    "FedLC",
    "FedYoYo",
    "Focal",
    "InfoBatch",
    "LdamDrw",
    "LogitAdjustment",
    "Mdcs",
    "Mixup",
    "ScoreFacilityLocation",
    "ScoreGraphCut",
    "SquareRootSampling",
]

CLIENTS: dict[str, type[ClientPlugin]] = {
    "balanced_softmax": BalancedSoftmax,
    "class_balanced": ClassBalanced,
    "class_balanced_sampling": ClassBalancedSampling,
    "cross_entropy": CrossEntropy,
    "deit_lt": DeitLT,
    "discl": DisCL,
    "equalisation": Equalisation,
    "fedir": FedIR,
    "fedlc": FedLC,
    "fedyoyo": FedYoYo,
    "focal": Focal,
    "infobatch": InfoBatch,
    "ldam_drw": LdamDrw,
    "logit_adjustment": LogitAdjustment,
    "mdcs": Mdcs,
    "mixup": Mixup,
    "score_facility_location": ScoreFacilityLocation,
    "score_graph_cut": ScoreGraphCut,
    "square_root_sampling": SquareRootSampling,
}
