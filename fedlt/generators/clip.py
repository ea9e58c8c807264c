"""CLIP as a filter: the cosine of an image with a sentence about its class.

Radford et al., ICML 2021, https://arxiv.org/abs/2103.00020. Cosines are no probabilities: good
pairs have cosines of about 0.25 to 0.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedlt.generators.extra import diffusion_extra

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # mean of the images that CLIP was trained on
_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipScores:
    """Scores of images by a CLIP model, which is loaded with its tokeniser from a local folder."""

    def __init__(self, folder: str, device: torch.device) -> None:
        transformers = diffusion_extra("transformers")
        self._device = device
        self._tokens: Any = transformers.CLIPTokenizer.from_pretrained(
            folder, local_files_only=True
        )
        model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True)
        self._model: Any = model.to(device).eval()
        self._size: int = model.config.vision_config.image_size

    @torch.no_grad()
    def __call__(self, images: Tensor, sentences: Sequence[str]) -> Tensor:
        """Return the cosine (B,) of each image with its sentence.

        Args:
            images: (B, 3, H, W) in [0, 1].
            sentences: One sentence per image.
        """
        size = (self._size, self._size)
        pixels = functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (pixels.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        text = self._tokens(list(sentences), padding=True, truncation=True, return_tensors="pt")
        found = self._model(pixel_values=(pixels - mean) / std, **text.to(self._device))
        cosines: Tensor = (found.image_embeds * found.text_embeds).sum(dim=1)
        return cosines.cpu()
