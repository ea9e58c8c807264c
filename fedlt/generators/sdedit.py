"""Image to image by diffusion: add noise to a source, then denoise. Pure functions of tensors.

SDEdit: Meng et al., ICLR 2022, https://arxiv.org/abs/2108.01073. DDIM: Song, Meng and Ermon, ICLR
2021, https://arxiv.org/abs/2010.02502, equation 12 with eta = 0. Cosine schedule: Nichol and
Dhariwal, ICML 2021, https://arxiv.org/abs/2102.09672, equation 17. Classifier-free guidance: Ho and
Salimans, 2022, https://arxiv.org/abs/2207.12598, equation 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, int], Tensor]  # (z (B, Ch, H, W), time) -> predicted noise, same shape


def alpha_bars(times: int) -> Tensor:
    """Return the share of an image's variance that remains at each noise level: (times,), falling.

    Args:
        times: Number of noise levels, at least 1. Each level keeps at least 0.001 of the share
            before.
    """

    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f((t + 1) / times) / f(t / times), 0.999) for t in range(times)]
    return (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(dim=0)


def steps_of(level: float, steps: int) -> int:
    """Return the number of denoising steps at a level: floor((1 - level) * steps).

    Rounding errors are corrected: 1 - 0.9 counts as 0.1.

    Args:
        level: Guidance by the source in [0, 1]: 0 ignores the source, 1 copies the source.
        steps: Steps of a whole denoising.
    """
    return int((1 - level) * steps + 1e-6)


def sampled_times(times: int, steps: int) -> list[int]:
    """Return the times of a whole denoising, evenly spaced, falling from the noisiest time."""
    return [(step + 1) * times // steps - 1 for step in reversed(range(steps))]


def noised(images: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """Return sqrt(kept) images + sqrt(1 - kept) noise.

    Args:
        images: (B, Ch, H, W) in [-1, 1].
        noise: (B, Ch, H, W), standard normal.
        kept: Values of ``alpha_bars``, broadcastable to the images.
    """
    return kept.sqrt() * images + (1 - kept).sqrt() * noise


def guided(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    """Return the guided prediction (1 + w) e(z, c) - w e(z); weight 0 gives the conditional one."""
    return (1 + weight) * conditional - weight * unconditional


def denoise(
    images: Tensor, noise: Tensor, denoiser: Denoiser, *, level: float, kept: Tensor, steps: int
) -> Tensor:
    """Return synthetic images made from source images; the level says how similar they stay.

    Args:
        images: Source images (B, Ch, H, W) in [-1, 1].
        noise: (B, Ch, H, W), standard normal, the only random input.
        denoiser: Function that predicts the noise in ``z`` at a time.
        level: 0 starts from noise alone; 1 returns the sources unchanged.
        kept: (times,) from :func:`alpha_bars`.
        steps: Steps of a whole denoising, of which the level takes :func:`steps_of`.
    """
    times = sampled_times(len(kept), steps)[steps - steps_of(level, steps) :]
    if not times:
        return images
    alphas = kept.to(images.device)
    z = noise if level == 0 else noised(images, noise, alphas[times[0]].to(images.dtype))
    for time, later in zip(times, [*times[1:], None], strict=True):
        alpha = alphas[time]
        after = alphas.new_tensor(1.0) if later is None else alphas[later]
        predicted = denoiser(z, time)
        clean = (z - float((1 - alpha).sqrt()) * predicted) / float(alpha.sqrt())
        clean = clean.clamp(-1, 1)
        z = float(after.sqrt()) * clean + float((1 - after).sqrt()) * predicted
    return z
