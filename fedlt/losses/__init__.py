"""Losses: one paper per file, pure functions of logits or features."""

from __future__ import annotations

from fedlt.losses.balanced_softmax import balanced_softmax
from fedlt.losses.class_balanced import effective_number_weights
from fedlt.losses.combinatorial import facility_location, graph_cut
from fedlt.losses.cross_entropy import (
    class_weighted_cross_entropy,
    cross_entropy,
    entropy,
    under_vmap,
)
from fedlt.losses.distillation import masked_divergence, not_true
from fedlt.losses.equalisation import equalisation, kept_in_softmax
from fedlt.losses.fedir import importance_weights
from fedlt.losses.fedlc import calibration, fedlc
from fedlt.losses.focal import focal
from fedlt.losses.hard_distillation import (
    mean_weight,
    reweighting,
    soft_cross_entropy,
    weighted_distillation,
)
from fedlt.losses.ldam import ldam, ldam_margins
from fedlt.losses.logit_adjustment import logit_adjusted
from fedlt.losses.mdcs import consistency, diversity, expert_offsets
from fedlt.losses.model_contrast import model_contrast
from fedlt.losses.prototypes import nearest_prototype, prototype_distance
from fedlt.losses.self_distillation import weak_to_strong

__all__ = [
    "balanced_softmax",
    "calibration",
    "class_weighted_cross_entropy",
    "consistency",
    "cross_entropy",
    "diversity",
    "effective_number_weights",
    "entropy",
    "equalisation",
    "expert_offsets",
    "facility_location",
    "fedlc",
    "focal",
    "graph_cut",
    "importance_weights",
    "kept_in_softmax",
    "ldam",
    "ldam_margins",
    "logit_adjusted",
    "masked_divergence",
    "mean_weight",
    "model_contrast",
    "nearest_prototype",
    "not_true",
    "prototype_distance",
    "reweighting",
    "soft_cross_entropy",
    "under_vmap",
    "weak_to_strong",
    "weighted_distillation",
]
