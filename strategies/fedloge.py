"""FedLoGe: joint personal and generic federated learning under long-tailed data.

Xiao et al., ICLR 2024. https://arxiv.org/abs/2401.08977
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor, zeros

from fedlt.config.ranges import Positive, ShareBelowOne
from fedlt.methods.composition import own_cross_entropy
from fedlt.models import FixedHead, LinearHead, Model, StreamHead, linear_logits
from fedlt.models.etf import sparse_etf
from fedlt.models.etf_start import first_rate, slow_start
from fedlt.models.realign import global_realign, local_realign
from fedlt.rng import seed_torch
from fedlt.strategy import Strategy, StrategyTraits
from fedlt.update import HeadFunction, ServerState, Tensors, Update, prefixed

if TYPE_CHECKING:
    from fedlt.client import Batch, Client, ClientPlugin


@dataclass(frozen=True)
class FedLoGe(Strategy):
    """Backbone trained through a frozen sparse ETF; a shared and a personal head, realigned.

    The frozen classifier is SSE-C. Auxiliary head psi (averaged) and local head phi_k (personal)
    learn on detached features. ``profile: reference`` is the public code: bias in SSE-C, V2.
    """

    traits = StrategyTraits(
        needs_linear_heads=True, takes_stream_heads=True, with_experts="fedloge_experts", sends="",
        trains_once=True)  # fmt: skip
    sparsity: ShareBelowOne = 0.6  # beta: share of the classifier's entries that are zero
    etf_norm: Positive = 0.1  # gamma: target norm of each class vector
    etf_scale: Positive | None = None  # instead: logits are etf_scale * cosine
    profile: Literal["paper", "reference"] = "paper"

    def refuses(self, plugin: ClientPlugin) -> str | None:
        """Return why a plugin is refused: on normed features a small classifier caps logits."""
        if plugin.traits.normed_features and self.etf_scale is None:
            return "its features have norm sqrt(D) already; set strategy.etf_scale, such as 16"
        return super().refuses(plugin)

    def hint(self, client: Client) -> str:
        """Return a line if the first steps through SSE-C are far slower than published ones."""
        head, rate = client.model.heads["sse_c"], first_rate(client.local, client.rounds)
        return slow_start(client.model, head, client.data, rate)

    def build(self, model: Model) -> None:
        """Add the heads ``sse_c`` (fixed), ``auxiliary`` (shared) and ``local`` (personal)."""
        size = (model.num_features, model.num_classes)
        bias = zeros(size[1]) if self.profile == "reference" else None
        model.add_head("sse_c", FixedHead(zeros(size[::-1]), bias, scale=self.etf_scale))
        model.add_head("auxiliary", LinearHead(*size))
        model.add_head("local", LinearHead(*size), group="personal")

    def init(self, model: Model) -> ServerState:
        """Return the first state with SSE-C, which is made once and the same for every seed."""
        state, size = super().init(model), (model.num_features, model.num_classes)
        norm = self.etf_norm if self.etf_scale is None else 1.0
        weight = sparse_etf(*size, sparsity=self.sparsity, norm=norm, seed=0)  # (C, D)
        fixed = {**state.fixed, "heads.sse_c.weight": weight}
        if self.profile == "reference":
            seed_torch(0, "sse_c bias")
            fixed["heads.sse_c.bias"] = LinearHead(*weight.shape[::-1]).bias.detach().clone()
        return replace(state, fixed=fixed)

    def init_personal(self, client: Client) -> Tensors:
        """Return a client's first personal state, with a local head drawn for this client."""
        seed_torch(client.seed, "local head", client.cid)
        *streams, c, d = client.model.shapes()["heads.local.weight"]
        head = StreamHead(streams[0], d, c) if streams else LinearHead(d, c)
        return {**super().init_personal(client), **prefixed("heads.local.", head.state_dict())}

    def local_update(self, client: Client) -> Update:
        """Train all three heads at once; the local head has no decay, as LA-FR reads its norms."""
        return client.update(client.train(self.objective, no_decay=("heads.local.",)))

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return L_theta + L_psi + L_phi; their parameters are disjoint: one backward pass."""
        heads, plugin = client.model.heads, client.plugin
        features = client.model.features(batch.images)  # (B, S, D)
        detached = features.detach()
        backbone = plugin.loss(heads["sse_c"](features), batch, client)
        auxiliary = plugin.loss(heads["auxiliary"](detached), batch, client)
        return backbone + auxiliary + own_cross_entropy(heads["local"](detached), batch)

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the realigned auxiliary head (GA-FR), then SSE-C and auxiliary head as trained."""
        weight, bias = broadcast["heads.auxiliary.weight"], broadcast["heads.auxiliary.bias"]
        scale = 1.7 if self.profile == "reference" else 1.0
        return {
            "realigned": partial(linear_logits, weight=global_realign(weight, scale), bias=bias),
            "sse_c": model.heads["sse_c"],
            "auxiliary": partial(linear_logits, weight=weight, bias=bias),
        }

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return LA-FR's heads (V1: paper, V2: public code), then the heads as trained."""
        psi, psi_bias = broadcast["heads.auxiliary.weight"], broadcast["heads.auxiliary.bias"]
        phi, phi_bias = personal["heads.local.weight"], personal["heads.local.bias"]
        v1 = local_realign(psi, phi)  # (C, D): psi_c * |phi_c|
        heads: dict[str, HeadFunction] = {
            "realigned_v1": partial(linear_logits, weight=v1, bias=psi_bias),
            "realigned_v2": partial(linear_logits, weight=v1 + phi, bias=psi_bias + phi_bias),
            "local": partial(linear_logits, weight=phi, bias=phi_bias),
            "auxiliary": partial(linear_logits, weight=psi, bias=psi_bias),
        }
        first = "realigned_v2" if self.profile == "reference" else "realigned_v1"
        return {first: heads[first], **heads}
