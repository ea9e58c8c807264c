"""Stable diffusion and CLIP with tiny random weights, made here."""

from __future__ import annotations

import json
import string
import warnings

import numpy as np
import pytest
import torch

from fedlt.generators.extra import diffusion_extra
from fedlt.generators.filling import filled_pool, pool_place
from fedlt.generators.generator import Items, PoolRequest, tail_sources
from fedlt.generators.sdedit import steps_of
from fedlt.generators.stable_diffusion import StableDiffusion, strength_of

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 2}


def tokenizer_of(transformers, folder):
    """One token for each letter or digit, inside a word and at its end."""
    letters = string.ascii_lowercase + string.digits
    words = [*letters, *(f"{c}</w>" for c in letters), "ab", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    return transformers.CLIPTokenizer(**files, model_max_length=77), len(words)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write a pipeline and a CLIP model, and return the settings that name them."""
    for name in ("diffusers", "transformers"):
        pytest.importorskip(name, reason="needs fedlt[diffusion]")
    diffusers, transformers = diffusion_extra("diffusers"), diffusion_extra("transformers")
    folder = tmp_path_factory.mktemp("weights")
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer, words = tokenizer_of(transformers, folder)
        ends = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": 1}
        text = {**SIZES, **ends, "vocab_size": words}
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        )
        diffusers.StableDiffusionImg2ImgPipeline(
            vae=vae,
            text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)),
            tokenizer=tokenizer,
            unet=unet,
            scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder / "pipeline")
        vision = {**SIZES, "image_size": 16, "patch_size": 8}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        transformers.CLIPModel(config).save_pretrained(folder / "clip")
        tokenizer.save_pretrained(folder / "clip")
    torch.set_rng_state(state)
    paths = {"weights_path": str(folder / "pipeline"), "clip_path": str(folder / "clip")}
    return {**paths, "side": 16, "sample_steps": 4, "per_image": 1, "tries": 2}


def request_of(lab):
    preparation = lab.federation(client="cross_entropy").observer.preparation()
    sources = tuple(own[:1] for own in tail_sources(preparation, 0.8))
    return PoolRequest(preparation, sources, (0.0, 0.5))


@pytest.mark.parametrize("steps", [50, 25, 4])
def test_pipelines_take_as_many_steps_as_a_level_has(steps):
    """They take int(steps * strength); 50 * (1 - 0.9) would be 4."""
    for level in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
        strength = strength_of(level, steps)
        assert strength <= 1
        assert int(steps * strength) == steps_of(level, steps)


def test_a_pool_of_tiny_random_weights(lab, weights):
    request, generator = request_of(lab), StableDiffusion(**weights)
    pool = filled_pool(generator, request)
    assert len(pool) == 2 * len(request.every_source)
    assert pool.images.shape[1:] == request.preparation.data.train_images.shape[1:]
    assert np.abs(pool.scores).max() <= 1 + 1e-6
    pool_place(generator, request).unlink()
    again = filled_pool(generator, request)
    assert np.array_equal(again.images, pool.images)
    assert np.array_equal(again.scores, pool.scores)


def maker_of(lab, weights, tmp_path, **changes):
    request = request_of(lab)
    generator = StableDiffusion(**weights | changes)
    (group,) = generator.groups(request)
    return generator.open(request, group, tmp_path, lambda: None), request, generator


def test_every_step_of_a_level_is_executed(lab, weights, tmp_path, monkeypatch):
    maker, request, _ = maker_of(lab, weights, tmp_path, tries=1, sample_steps=10)
    items = [Items(v, request.every_source[:1], np.zeros(1, int)) for v in (0.0, 0.3, 0.9, 0.95)]
    forward, calls = maker.pipeline.unet.forward, []
    monkeypatch.setattr(
        maker.pipeline.unet, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1]
    )
    found = []
    for item in items:
        calls.clear()
        images, _ = maker(item)
        found.append(len(calls))
    assert found == [10, 7, 1, 0]
    assert np.array_equal(images, request.preparation.data.train_images[items[-1].sources])


def test_the_filter_tries_again_and_keeps_the_best(lab, weights, tmp_path, monkeypatch):
    """Two images: the first passes at once, the second never: its best of three is kept."""
    maker, request, _ = maker_of(lab, weights, tmp_path, tries=3)
    items = Items(0.5, np.repeat(request.every_source[:1], 2), np.arange(2))
    scores = iter([[0.4, 0.1], [0.2], [0.15]])
    made = []
    run = maker._made
    monkeypatch.setattr(
        type(maker),
        "_made",
        lambda self, part, attempt: made.append(run(part, attempt)) or made[-1],
    )
    monkeypatch.setattr(type(maker), "_rated", lambda *_: np.array(next(scores)))
    images, found = maker(items)
    assert found.tolist() == [0.4, 0.2]
    assert [len(part) for part in made] == [2, 1, 1]
    assert np.array_equal(images[0], made[0][0])
    assert np.array_equal(images[1], made[1][0])


def test_clip_is_the_cosine_of_its_two_embeddings(lab, weights, tmp_path):
    maker, _, _ = maker_of(lab, weights, tmp_path)
    images, sentences = torch.rand(2, 3, 16, 16), ["a photo of a 1", "a photo of a 2"]
    found = maker.clip(images, sentences)
    transformers = diffusion_extra("transformers")
    model = transformers.CLIPModel.from_pretrained(weights["clip_path"], local_files_only=True)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    tokens = maker.clip._tokens(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        pictures = model.visual_projection(model.vision_model((images - mean) / std).pooler_output)
        texts = model.text_projection(model.text_model(**tokens).pooler_output)
    expected = torch.cosine_similarity(pictures, texts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_other_weights_are_another_pool(lab, weights, tmp_path):
    """Their content counts, not their place."""
    import shutil

    request = request_of(lab)
    copy = shutil.copytree(weights["clip_path"], tmp_path / "copy")
    first = pool_place(StableDiffusion(**weights), request)
    assert pool_place(StableDiffusion(**weights | {"clip_path": str(copy)}), request) == first
    (copy / "config.json").write_text("{}")
    assert pool_place(StableDiffusion(**weights | {"clip_path": str(copy)}), request) != first
