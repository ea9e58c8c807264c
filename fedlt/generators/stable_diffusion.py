"""Generator ``stable_diffusion``: a pretrained text-to-image model, loaded from a local folder.

The method is that of Liang et al., Diffusion curriculum, ICCV 2025,
https://arxiv.org/abs/2410.13674, section 3.2: image to image with a strength of 1 - level, prompts
about the class, and CLIP as a filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedlt.config.ranges import Count, NotNegative
from fedlt.config.yaml12 import read_mapping
from fedlt.data import FederatedData
from fedlt.errors import FedltError, one_line
from fedlt.generators.clip import ClipScores
from fedlt.generators.extra import diffusion_extra
from fedlt.generators.generator import ClientGroup, Generator, Items, Maker, PoolRequest, TimesEight
from fedlt.generators.sdedit import steps_of
from fedlt.rng import key, numpy_generator


@dataclass(frozen=True)
class StableDiffusion(Generator):
    """Image-to-image pipeline of the library diffusers, filtered by CLIP."""

    name: ClassVar[str] = "stable_diffusion"
    least_score: ClassVar[float] = 0.3  # cosine
    per_image: Count = 8
    batch: Count = 4
    weights_path: str = ""  # folder of a pipeline in diffusers' format
    clip_path: str = ""  # folder of a CLIP model with tokeniser, in transformers' format
    prompts_path: str = ""  # YAML: class name -> sentences; "": "a photo of a NAME"
    sample_steps: Count = 50  # steps of a whole denoising
    text_guidance: NotNegative = 10.0
    side: TimesEight = 512  # pixels: side of the images that the pipeline takes
    tries: Count = 5  # most attempts while CLIP rejects an image; the best image is kept
    half: bool = False  # True: float16, for a GPU

    def __post_init__(self) -> None:
        """Refuse a missing folder of weights or of CLIP."""
        for name in ("weights_path", "clip_path"):
            if not getattr(self, name):
                raise ValueError(f"{name} is ''; expected a folder on this disk")

    def settings(self) -> Mapping[str, object]:
        """Return all settings, with digests of the files in place of the paths."""
        from fedlt.machine.digests import path_digest

        paths = ("weights_path", "clip_path", "prompts_path")
        contents = {
            name: path_digest(Path(given)) for name in paths if (given := getattr(self, name))
        }
        return {**super().settings(), **contents}

    def announce(self, request: PoolRequest, groups: Sequence[ClientGroup]) -> str:
        """Return a note with the number of denoising steps; their time depends on the weights."""
        made = len(request.every_source) * self.per_image
        steps = sum(int(self.sample_steps * (1 - level) + 1e-9) for level in request.levels) * made
        return f"{steps} denoising steps at {self.side} pixels, more where the filter refuses"

    def open(
        self, request: PoolRequest, group: ClientGroup, folder: Path, tick: Callable[[], None]
    ) -> Maker:
        """Return a maker of images, after loading the pipeline and CLIP."""
        data, device = request.preparation.data, request.preparation.device
        prompts = read_prompts(self.prompts_path, data.class_names)
        pipeline = _loaded(
            "weights_path", self.weights_path, lambda path: self._pipeline(path, device)
        )
        clip = _loaded("clip_path", self.clip_path, lambda path: ClipScores(path, device))
        return _StableSampler(self, data, pipeline, clip, prompts, request.preparation.seed)

    def _pipeline(self, folder: str, device: torch.device) -> Any:  # noqa: ANN401
        diffusers = diffusion_extra("diffusers")
        diffusion_extra("transformers")
        kind = torch.float16 if self.half else torch.float32
        pipeline = diffusers.AutoPipelineForImage2Image.from_pretrained(
            folder, local_files_only=True, low_cpu_mem_usage=False
        )
        pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        if getattr(pipeline, "safety_checker", None) is not None:
            pipeline.safety_checker = None
        return pipeline.to(device, kind)


def _loaded(name: str, path: str, load: Callable[[str], Any]) -> Any:  # noqa: ANN401
    if not Path(path).is_dir():
        raise FedltError(f"generator: {name}: {path} is no folder on this disk")
    try:
        return load(path)
    except FedltError:
        raise
    except Exception as error:  # whatever a damaged file raises
        raise FedltError(
            f"generator: {name}: {path} cannot be loaded: {one_line(error)}"
        ) from error


def read_prompts(path: str, names: Sequence[str]) -> list[list[str]]:
    """Return the prompts of every class.

    Args:
        path: YAML file, class name -> sentence or list of sentences; "": "a photo of a NAME".
        names: Names of the classes.

    Raises:
        FedltError: If the file cannot be read, or has no sentence for a class.
    """
    if not path:
        return [[f"a photo of a {name}"] for name in names]
    given = {str(name): value for name, value in read_mapping(Path(path)).items()}
    found = []
    for name in map(str, names):
        value = given.get(name)
        sentences = [value] if isinstance(value, str) else value
        if (
            not isinstance(sentences, list)
            or not sentences
            or not all(isinstance(sentence, str) and sentence for sentence in sentences)
        ):
            raise FedltError(f"generator: prompts_path: {path} has no sentences for class {name!r}")
        found.append(sentences)
    return found


def strength_of(level: float, steps: int) -> float:
    """Return the strength with which a pipeline takes ``steps_of(level, steps)`` steps.

    Pipelines take int(steps * strength) steps; a strength of 1 - 0.9 would give 4 of 50, not 5.
    """
    return min(1.0, (steps_of(level, steps) + 0.5) / steps) if level else 1.0


@dataclass(frozen=True, eq=False)
class _StableSampler:
    """Maker of images by the pipeline from source images."""

    of: StableDiffusion
    data: FederatedData
    pipeline: Any
    clip: ClipScores
    prompts: list[list[str]]
    seed: int

    def __call__(self, items: Items) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return images and their cosines; a rejected image is made again, and the best is kept."""
        images = np.asarray(self.data.train_images[items.sources], np.uint8)
        scores = np.full(len(images), -np.inf)
        best, open_ = images.copy(), np.arange(len(images))
        if steps_of(items.level, self.of.sample_steps) == 0:  # no step: copies of the sources
            return best, self._rated(best, items.sources)
        for attempt in range(self.of.tries):
            part = Items(items.level, items.sources[open_], items.copies[open_])
            made = self._made(part, attempt)
            found = self._rated(made, part.sources)
            better = found > scores[open_]
            best[open_[better]], scores[open_[better]] = made[better], found[better]
            open_ = open_[scores[open_] < self.of.least_score]
            if not len(open_):
                break
        return best, scores

    def _made(self, items: Items, attempt: int) -> NDArray[np.uint8]:
        """Return images of the pipeline, each with its own random generator and prompt."""
        of, labels = self.of, self.data.train_labels[items.sources]
        seeds, prompts = [], []
        for row, copy, label in zip(items.sources, items.copies, labels, strict=True):
            keys = (int(row), int(copy), attempt)
            seeds.append(torch.Generator().manual_seed(key(self.seed, "synthesis", *keys)))
            choice = numpy_generator(self.seed, "prompt", *keys).integers(len(self.prompts[label]))
            prompts.append(self.prompts[label][choice])
        sources = _as_rgb(np.asarray(self.data.train_images[items.sources], np.uint8))
        size = (of.side, of.side)
        shown = functional.interpolate(sources, size, mode="bicubic", antialias=True).clamp(0, 1)
        made = self.pipeline(
            prompt=prompts,
            image=shown,
            strength=strength_of(items.level, of.sample_steps),
            guidance_scale=of.text_guidance,
            num_inference_steps=of.sample_steps,
            generator=seeds,
            output_type="pt",
        ).images
        channels, *small = self.data.train_images.shape[1:]
        pixels = functional.interpolate(made.float().cpu(), small, mode="area").clamp(0, 1)
        if channels == 1:
            pixels = pixels.mean(dim=1, keepdim=True)
        return (pixels * 255).round().to(torch.uint8).numpy()

    def _rated(self, images: NDArray[np.uint8], sources: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return each image's CLIP cosine with the sentence "a photo of a NAME" of its class."""
        names = [self.data.class_names[label] for label in self.data.train_labels[sources]]
        cosines = self.clip(_as_rgb(images), [f"a photo of a {name}" for name in names])
        found: NDArray[np.float64] = cosines.double().numpy()
        return found


def _as_rgb(images: NDArray[np.uint8]) -> Tensor:
    """Return images (m, 1 or 3, H, W) as (m, 3, H, W) in [0, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    return pixels.expand(-1, 3, -1, -1)
