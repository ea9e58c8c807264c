"""A vision transformer with a class token and a distillation token, for any image size.

Touvron et al., Training data-efficient image transformers and distillation through attention
(DeiT), ICML 2021, https://arxiv.org/abs/2012.12877, section 4. The library timm has the network.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.layers import Backbone

NO_DECAY: Final = tuple(f"backbone.vit.{n}" for n in ("pos_embed", "cls_token", "dist_token"))
_MOST_PATCHES = 8  # largest number of patches along a side, if no patch size is given


def patch_side(height: int, width: int) -> int:
    """Return the smallest divisor of both image sides that is a patch side of at least 2 pixels.

    A square image then has at most 8 patches along each side, any other along its shorter side.

    Raises:
        FedltError: If the sides have no such divisor.
    """
    smallest = max(2, -(-min(height, width) // _MOST_PATCHES))
    for side in range(smallest, min(height, width) + 1):
        if height % side == width % side == 0:
            return side
    raise FedltError(
        f"the vision transformer cuts images into squares of at least {smallest} pixels a side, "
        f"and images of {height} x {width} do not divide so"
    )


class DistilledViT(Backbone):
    """Pre-norm transformer whose streams are the normalised CLS (0) and DIST (1) tokens.

    Args:
        image_shape: (Ch, H, W) of the images.
        patch: Side of a patch, pixels; None: :func:`patch_side`.
        width: Features of a token, D.
        depth: Number of blocks.
        heads: Attention heads; a divisor of ``width``.
        mlp_ratio: Hidden units of a block's perceptron, times D.
        drop_path: Stochastic depth of the last block; the rate grows linearly from 0.

    Raises:
        FedltError: If timm is not installed, or a size does not fit.
    """

    num_streams = 2

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        patch: int | None = None,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        side = patch_side(*sides) if patch is None else patch
        for length in sides:
            if length % side:
                raise FedltError(f"patch: {side} does not divide the image side {length}")
        if width % heads:
            raise FedltError(f"heads: {heads} does not divide width {width}")
        self.num_features, self.num_blocks = width, depth
        try:
            from timm.models.deit import VisionTransformerDistilled
        except ImportError as error:
            raise FedltError(
                f"the vision transformer needs timm ({error}): pip install 'fedlt[vit]'"
            ) from error
        self.vit: Any = VisionTransformerDistilled(
            img_size=tuple(sides),
            patch_size=side,
            in_chans=channels,
            num_classes=0,  # no heads from timm: the strategy adds its own
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path,
        )
        for block in self.vit.blocks:
            block.attn.fused_attn = False  # the fused product has no rule for stacked clients

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to the two tokens (B, 2, D)."""
        tokens: Tensor = self.vit.forward_features(x)  # (B, 2 + patches, D)
        return tokens[:, : self.num_streams]

    def block_features(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to the two tokens after every block, (B, depth, 2, D).

        These tokens are not normalised: the network's last LayerNorm comes after the last block.
        """
        found: list[Tensor] = []

        def keep(block: nn.Module, inputs: tuple[Tensor, ...], tokens: Tensor) -> None:
            found.append(tokens[:, : self.num_streams])

        handles = [block.register_forward_hook(keep) for block in self.vit.blocks]
        try:
            self.vit.forward_features(x)
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack(found, dim=1)


def fuse(logits: Tensor, how: str) -> Tensor:
    """Return the logits (B, C) of an image from those of its two tokens, (B, 2, C).

    Args:
        logits: Logits of CLS and DIST.
        how: ``logits``: mean of the two, as in the paper; ``probs``: logarithm of the mean
            probabilities; ``cls`` or ``dist``: the logits of one token.
    """
    if how == "logits":
        return logits.mean(dim=1)
    if how == "probs":
        return logits.log_softmax(dim=-1).logsumexp(dim=1) - math.log(logits.shape[1])
    return logits[:, ("cls", "dist").index(how)]
