"""Models: backbones, heads, and ``Model``, which joins them."""

from __future__ import annotations

from fedlt.models.backbones import BACKBONES, build_backbone
from fedlt.models.experts import Experts, make_experts
from fedlt.models.factory import build_model
from fedlt.models.heads import CosineHead, FixedHead, LinearHead, StreamHead, linear_logits
from fedlt.models.model import GROUPS, Group, Model

__all__ = [
    "BACKBONES",
    "GROUPS",
    "CosineHead",
    "Experts",
    "FixedHead",
    "Group",
    "LinearHead",
    "Model",
    "StreamHead",
    "build_backbone",
    "build_model",
    "linear_logits",
    "make_experts",
]
