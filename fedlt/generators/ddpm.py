"""A small class-conditional diffusion model, trained by clients and applied to their own images.

Ho, Jain and Abbeel, NeurIPS 2020, https://arxiv.org/abs/2006.11239, equation 14. The network is
diffusers' UNet2DModel with group norm, which can be averaged without special care. An additional
class stands for "no class". A small classifier, trained in the same way, scores the images: the
score is the probability of the image's class.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedlt.config.ranges import Count, NotNegative, Positive, ShareBelowOne
from fedlt.data.prior import ABSENT
from fedlt.errors import FedltError
from fedlt.generators.extra import diffusion_extra
from fedlt.generators.fitting import Fit, fit
from fedlt.generators.generator import ClientGroup, Generator, Items, Maker, PoolRequest, TimesEight
from fedlt.generators.sdedit import alpha_bars, denoise, guided, noised
from fedlt.machine.maps import placed
from fedlt.optim.batch import ImageTensor
from fedlt.progress import round_time
from fedlt.rng import seed_torch, set_torch_state, torch_generator, torch_state


@dataclass(frozen=True)
class Ddpm(Generator):
    """Base class of the generators that are trained on the federation's images."""

    least_score: ClassVar[float] = 0.3
    rounds: Count = 100
    local_steps: Count = 10  # steps of a client in a round
    batch_size: Count = 32
    lr: Positive = 0.002
    width: TimesEight = 32  # channels of the first stage; each further stage doubles them
    stages: Count = 2
    times: Count = 200  # noise levels
    sample_steps: Count = 25  # steps of a whole denoising
    class_guidance: NotNegative = 2.0  # w of classifier-free guidance
    drop_class: ShareBelowOne = 0.1  # share of training images shown without their class
    decay: ShareBelowOne = 0.995  # decay per step of the running mean of the weights

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.times < self.sample_steps:
            raise ValueError(f"times is {self.times}; expected at least sample_steps")

    def rounds_of(self, group: ClientGroup) -> int:
        """Return the number of training rounds of both networks together."""
        return 2 * self.rounds

    def announce(self, request: PoolRequest, groups: Sequence[ClientGroup]) -> str:
        """Return a note about the training to come and its time here, estimated by a short trial.

        The estimate ignores the saved work of an earlier, stopped generation.

        Raises:
            FedltError: If images of this size do not fit the network.
        """
        self._check_sides(request.preparation.data.train_images.shape[2:])
        cohort = request.preparation.cohort
        clients = sum(min(cohort, sum(len(own) > 0 for own in g.clients)) for g in groups)
        steps = 2 * self.rounds * self.local_steps * clients
        passes = sum(1 - level for level in request.levels) * self.sample_steps
        made = len(request.every_source) * self.per_image * passes
        step, denoising = trial(self, request)
        seconds = steps / 2 * step + made * denoising
        return (
            f"first a diffusion model and a classifier are trained, {self.rounds} rounds each, "
            f"{steps} steps of {self.batch_size} images in all; about {round_time(seconds)} here"
        )

    def open(
        self, request: PoolRequest, group: ClientGroup, folder: Path, tick: Callable[[], None]
    ) -> Maker:
        """Return a maker of images, after training both networks on the group's images."""
        return _Learner(self, request, group, folder, tick).maker()

    def _check_sides(self, sides: tuple[int, ...]) -> None:
        side = 2 ** (self.stages - 1)
        if any(size % side for size in sides):
            raise FedltError(
                f"generator.stages: {self.stages} stages need images whose sides are multiples of "
                f"{side}, not {sides}"
            )


@dataclass(frozen=True, eq=False)
class _Learner:
    """Training of the two networks of one group."""

    of: Ddpm
    request: PoolRequest
    group: ClientGroup
    folder: Path
    tick: Callable[[], None]

    def maker(self) -> Maker:
        """Return a maker that uses the two networks, after training them."""
        data, preparation = self.request.preparation.data, self.request.preparation
        device = preparation.device
        pixels = placed(data.train_images, device)
        labels = torch.from_numpy(data.train_labels.copy())
        classes, kept = data.num_classes, alpha_bars(self.of.times)
        channels, height, width = data.image_shape
        before = torch_state()
        seed_torch(preparation.seed, "generator networks")
        unet = make_unet(channels, (height, width), classes, self.of.width, self.of.stages)
        rater = make_classifier(channels, classes)
        torch.set_rng_state(before[0])
        known = labels.to(device)

        def denoising(rows: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
            clean, given = scaled(pixels[rows]), known[rows].clone()
            noise = torch.randn(clean.shape, generator=generator).to(device)
            times = torch.randint(self.of.times, (len(rows),), generator=generator)
            dropped = torch.rand(len(rows), generator=generator) < self.of.drop_class
            given[dropped.to(device)] = classes
            left = kept[times].float().to(device)[:, None, None, None]
            found = unet(noised(clean, noise, left), times.to(device), class_labels=given).sample
            return functional.mse_loss(found, noise)

        def rating(rows: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
            # The rows were drawn with these class shares; balanced softmax corrects for them.
            prior = share.log().clamp(min=ABSENT).float().to(device)
            return functional.cross_entropy(rater(scaled(pixels[rows])) + prior, known[rows])

        self._fit(unet.to(device), denoising, labels, "generator")
        self._fit(rater.to(device), rating, labels, "rater")
        return _DdpmSampler(self.of, unet, rater, pixels, known, kept, preparation.seed)

    def _fit(self, network: nn.Module, loss: Any, labels: Tensor, purpose: str) -> None:  # noqa: ANN401
        clients = [torch.from_numpy(own.copy()) for own in self.group.clients if len(own)]
        of = self.of
        how = Fit(
            rounds=of.rounds,
            steps=of.local_steps,
            batch_size=of.batch_size,
            lr=of.lr,
            cohort=self.request.preparation.cohort,
            decay=of.decay,
        )
        file = self.folder / f"{purpose}.safetensors"
        seed = self.request.preparation.seed
        fit(
            network,
            loss,
            clients,
            labels,
            how,
            seed=seed,
            purpose=purpose,
            file=file,
            tick=self.tick,
        )


@dataclass(frozen=True, eq=False)
class _DdpmSampler:
    """Maker of images by diffusion from source images."""

    of: Ddpm
    unet: Any
    rater: nn.Module
    pixels: ImageTensor  # (N, Ch, H, W) uint8
    labels: Tensor  # (N,)
    kept: Tensor  # (times,)
    seed: int

    @torch.no_grad()
    def __call__(self, items: Items) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return the images, and as scores the probabilities of their classes."""
        rows = torch.from_numpy(items.sources).to(self.labels.device)
        sources, labels = scaled(self.pixels[rows]), self.labels[rows]
        noise = torch.stack(
            [
                torch.randn(
                    sources.shape[1:],
                    generator=torch_generator(self.seed, "synthesis", int(row), int(copy)),
                )
                for row, copy in zip(items.sources, items.copies, strict=True)
            ]
        ).to(sources.device)
        none = torch.full_like(labels, self.unet.config.num_class_embeds - 1)

        def denoiser(z: Tensor, time: int) -> Tensor:
            if self.of.class_guidance == 0:
                found: Tensor = self.unet(z, time, class_labels=labels).sample
                return found
            both = self.unet(z.repeat(2, 1, 1, 1), time, class_labels=torch.cat([labels, none]))
            conditional, unconditional = both.sample.chunk(2)
            return guided(conditional, unconditional, self.of.class_guidance)

        made = denoise(
            sources,
            noise,
            denoiser,
            level=items.level,
            kept=self.kept,
            steps=self.of.sample_steps,
        )
        pixels = ((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        scores = self.rater(pixels.float() / 127.5 - 1).softmax(dim=1)
        own = scores.gather(1, labels[:, None])[:, 0]
        return pixels.cpu().numpy(), own.double().cpu().numpy()


def scaled(pixels: Tensor) -> Tensor:
    """Return uint8 images as floats in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def trial(of: Ddpm, request: PoolRequest) -> tuple[float, float]:
    """Return measured seconds: of a training step of both networks, of a denoising step per image.

    The trial uses untrained networks of the same sizes on noise, and leaves the states of torch's
    global generators unchanged.
    """
    data, device = request.preparation.data, request.preparation.device
    channels, height, width = data.image_shape
    before = torch_state()
    unet = make_unet(channels, (height, width), data.num_classes, of.width, of.stages).to(device)
    rater = make_classifier(channels, data.num_classes).to(device)
    drawn = torch.rand(max(of.batch_size, of.batch), channels, height, width, device=device)
    set_torch_state(before)
    given = torch.zeros(len(drawn), dtype=torch.int64, device=device)
    optimizer = torch.optim.AdamW([*unet.parameters(), *rater.parameters()])

    def step() -> None:
        images, classes = drawn[: of.batch_size], given[: of.batch_size]
        optimizer.zero_grad()
        loss = unet(images, classes, class_labels=classes).sample.square().mean()
        torch.autograd.backward([loss + functional.cross_entropy(rater(images), classes)])
        optimizer.step()

    @torch.no_grad()
    def denoising() -> None:
        unet(drawn[: of.batch], given[: of.batch], class_labels=given[: of.batch])

    twice = 2 if of.class_guidance else 1  # guidance predicts with and without the class
    return _seconds(step), twice * _seconds(denoising) / of.batch


def _seconds(act: Callable[[], object]) -> float:
    """Return the median time of a call in seconds, after a first call that is not timed."""
    act()
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        act()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def make_unet(
    channels: int, size: tuple[int, int], classes: int, width: int, stages: int
) -> nn.Module:
    """Return an untrained denoiser; the class number ``classes`` stands for "no class"."""
    unet: nn.Module = diffusion_extra("diffusers").UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=tuple(width * 2**stage for stage in range(stages)),
        down_block_types=("DownBlock2D",) * stages,
        up_block_types=("UpBlock2D",) * stages,
        norm_num_groups=8,
        add_attention=False,
        num_class_embeds=classes + 1,
    )
    return unet


def make_classifier(channels: int, classes: int) -> nn.Sequential:
    """Return an untrained classifier of small images: two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 16, classes),
    )
