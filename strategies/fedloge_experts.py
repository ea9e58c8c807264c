"""FedLoGe (Xiao et al., ICLR 2024) for clients that train experts, such as MDCS.

https://arxiv.org/abs/2401.08977. The option ``mapping`` says which parts are the experts:

    aux_experts   auxiliary heads on the features of one backbone, which learns under SSE-C
    streams       streams with own last blocks, all under the same scaled, unit-norm SSE-C
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fedlt.methods.composition import own_cross_entropy
from fedlt.models import (
    CosineHead,
    Experts,
    FixedHead,
    LinearHead,
    Model,
    StreamHead,
    linear_logits,
)
from fedlt.models.realign import global_realign, local_realign
from fedlt.strategy import HeadFunction
from strategies.fedloge import FedLoGe

if TYPE_CHECKING:
    from fedlt.client import Batch, Client, ClientPlugin


@dataclass(frozen=True)
class FedLoGeExperts(FedLoGe):
    """FedLoGe for plugins with experts: each expert has a shared and a personal head, realigned.

    Predictions are the mean of the realigned experts' logits. The local (personal) heads learn by
    plain cross-entropy. With a plugin without experts the method is FedLoGe, bit for bit.
    """

    mapping: Literal["aux_experts", "streams"] = "aux_experts"  # which parts are the experts

    def refuses(self, plugin: ClientPlugin) -> str | None:
        """Return why a plugin is refused: experts under ``profile: reference``, or as FedLoGe."""
        if not plugin.traits.experts:
            return super().refuses(plugin)
        known = "profile: reference knows no experts; take profile: paper"
        return None if self.profile == "paper" else known

    def note(self, plugin: ClientPlugin) -> str:
        """Return a line that names the mapping, for plugins with experts."""
        return f"fedloge_experts: mapping {self.mapping}" if plugin.traits.experts else ""

    def build(self, model: Model) -> None:
        """Add the heads ``auxiliary`` (shared), ``sse_c`` (fixed) and ``local`` (personal)."""
        if not isinstance(model.backbone, Experts):
            super().build(model)
            return
        if self.mapping == "aux_experts":
            model.backbone = model.backbone.folded()
        size = (model.num_features, model.num_classes)
        model.add_head("auxiliary", LinearHead(*size))  # becomes a cosine head per expert
        scale = self.etf_scale
        if scale is None and self.mapping == "streams":
            scale = _auxiliary(model).scale
        empty = torch.zeros(model.num_classes, model.num_features)  # init() fills the classifier
        model.add_head("sse_c", FixedHead(empty, scale=scale), group="fixed")
        model.add_head("local", StreamHead(model.num_streams, *size), group="personal")

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the sum of the losses of backbone, auxiliary heads and local heads."""
        if not client.plugin.traits.experts:
            return super().objective(client, batch)
        heads, plugin = client.model.heads, client.plugin
        features = client.model.features(batch.images)  # (B, S, D)
        detached = features.detach()
        taught = features[:, :1] if self.mapping == "aux_experts" else features
        backbone = plugin.loss(heads["sse_c"](taught), batch, client)
        auxiliary = plugin.loss(heads["auxiliary"](detached), batch, client)
        return backbone + auxiliary + own_cross_entropy(heads["local"](detached), batch)

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the auxiliary cosine heads (equal norms, which is GA-FR), then SSE-C."""
        if not isinstance(model.heads["auxiliary"], CosineHead):
            return super().generic(model, broadcast)
        return {"realigned": model.heads["auxiliary"], "sse_c": model.heads["sse_c"]}

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return LA-FR of every expert (V1; V2 adds local logits), then the heads as trained."""
        if not isinstance(model.heads["auxiliary"], CosineHead):
            return super().personal(model, broadcast, personal)
        phi, own = personal["heads.local.weight"], model.heads["local"]
        psi = _auxiliary(model).scale * global_realign(broadcast["heads.auxiliary.weight"])
        v1 = partial(_cosine, weight=local_realign(psi, phi))  # (S, C, D): psi_c * |phi_c|
        v2, auxiliary = partial(_sum, v1, own), model.heads["auxiliary"]
        return {"realigned_v1": v1, "realigned_v2": v2, "local": own, "auxiliary": auxiliary}


def _auxiliary(model: Model) -> CosineHead:
    head = model.heads["auxiliary"]
    assert isinstance(head, CosineHead)
    return head


def _cosine(features: Tensor, weight: Tensor) -> Tensor:
    return linear_logits(normalize(features, dim=-1), weight)


def _sum(first: HeadFunction, second: HeadFunction, features: Tensor) -> Tensor:
    return first(features) + second(features)
