"""Client plugins: one local-training method per file. This table is the only registry.

A class is imported when it is first used: ``CLIENTS["focal"]``, or ``from clients import Focal``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.config.loading import Table

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin

CLIENTS: Table[type[ClientPlugin]] = Table(
    {
        "balanced_softmax": "clients.balanced_softmax:BalancedSoftmax",
        "class_balanced": "clients.class_balanced:ClassBalanced",
        "class_balanced_sampling": "clients.class_balanced_sampling:ClassBalancedSampling",
        "cross_entropy": "clients.cross_entropy:CrossEntropy",
        "deit_lt": "clients.deit_lt:DeitLT",
        "discl": "clients.discl:DisCL",
        "equalisation": "clients.equalisation:Equalisation",
        "fedir": "clients.fedir:FedIR",
        "fedlc": "clients.fedlc:FedLC",
        "fedyoyo": "clients.fedyoyo:FedYoYo",
        "focal": "clients.focal:Focal",
        "infobatch": "clients.infobatch:InfoBatch",
        "ldam_drw": "clients.ldam_drw:LdamDrw",
        "logit_adjustment": "clients.logit_adjustment:LogitAdjustment",
        "mdcs": "clients.mdcs:Mdcs",
        "mixup": "clients.mixup:Mixup",
        "score_facility_location": "clients.score_facility_location:ScoreFacilityLocation",
        "score_graph_cut": "clients.score_graph_cut:ScoreGraphCut",
        "square_root_sampling": "clients.square_root_sampling:SquareRootSampling",
    }
)

__getattr__ = CLIENTS.attribute_of(__name__)
