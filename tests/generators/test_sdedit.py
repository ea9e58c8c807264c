"""Image to image by diffusion against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from fedlt.generators.measures import similarities, spread
from fedlt.generators.sdedit import (
    alpha_bars,
    denoise,
    guided,
    noised,
    sampled_times,
    steps_of,
)

LEVELS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact_noise(mean, deviation, kept):
    """The best denoiser of images from N(mean, deviation^2).

    z = sqrt(a) x + sqrt(1 - a) e gives E[e | z] = sqrt(1 - a) (z - sqrt(a) mean) / Var z, with
    Var z = a deviation^2 + 1 - a.
    """

    def denoiser(z, time):
        a = float(kept[time])
        return math.sqrt(1 - a) * (z - math.sqrt(a) * mean) / (a * deviation**2 + 1 - a)

    return denoiser


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(50, [50, 45, 35, 25, 15, 5]), (1000, [1000, 900, 700, 500, 300, 100])],
)
def test_steps_of_a_level_in_spite_of_binary_fractions(steps, expected):
    """int(50 * (1 - 0.9)) is 4."""
    assert [steps_of(level, steps) for level in LEVELS] == expected
    assert steps_of(1.0, steps) == 0


def test_the_cosine_schedule_is_the_papers_closed_form():
    """alpha_bar_t = f(t) / f(0), until beta is cut at 0.999."""
    found = alpha_bars(200)
    f = [math.cos((t / 200 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(201)]
    expected = torch.tensor([value / f[0] for value in f[1:]], dtype=torch.float64)
    torch.testing.assert_close(found[:-1], expected[:-1])
    assert found[-1] == pytest.approx(float(found[-2]) * 0.001)


def test_noise_has_the_variance_of_its_time():
    kept = alpha_bars(100)
    image = torch.full((1, 1, 1, 1), 0.7)
    for time in (5, 50, 95):
        z = noised(image, draw(200_000, 1, 1, 1), kept[time].float())
        assert z.var().item() == pytest.approx(1 - kept[time].item(), rel=0.02)


def test_times_fall_evenly_from_the_last():
    assert sampled_times(200, 25)[:3] == [199, 191, 183]
    assert sampled_times(200, 25)[-1] == 7


def test_a_level_of_one_is_the_source_and_zero_does_not_see_it():
    kept, first, second = alpha_bars(50), draw(3, 1, 2, 2), draw(3, 1, 2, 2, seed=1)
    denoiser = exact_noise(0.0, 0.5, kept)
    options = {"kept": kept, "steps": 10}
    assert denoise(first, second, denoiser, level=1.0, **options) is first
    noise = draw(3, 1, 2, 2, seed=2)
    one, other = (denoise(s, noise, denoiser, level=0.0, **options) for s in (first, second))
    assert torch.equal(one, other)
    again = denoise(first, noise, denoiser, level=0.5, **options)
    assert torch.equal(again, denoise(first, noise, denoiser, level=0.5, **options))


def test_gaussian_images_are_denoised_as_the_closed_form_says():
    """The flow of the exact denoiser is linear: (z - sqrt(a) mean) / sqrt(Var z) stays the same.

    It ends at mean + deviation (z - sqrt(a) mean) / sqrt(a deviation^2 + 1 - a). DDIM follows it in
    steps of first order: 4000 of them leave 2 % of a deviation at most.
    """
    kept, mean, deviation = alpha_bars(4000), 0.1, 0.05
    sources = mean + deviation * draw(2000, 1, 1, 1).double()
    noise = draw(2000, 1, 1, 1, seed=1).double()
    correlations = []
    for level in LEVELS:
        found = denoise(
            sources, noise, exact_noise(mean, deviation, kept), level=level, kept=kept, steps=4000
        )
        a = kept[steps_of(level, 4000) - 1]
        z = noise if level == 0 else noised(sources, noise, a)
        a = 0.0 if level == 0 else float(a)
        expected = mean + deviation * (z - math.sqrt(a) * mean) / math.sqrt(
            a * deviation**2 + 1 - a
        )
        torch.testing.assert_close(found, expected, atol=0.03 * deviation, rtol=0)
        correlations.append(torch.corrcoef(torch.stack([found.flatten(), sources.flatten()]))[0, 1])
    assert correlations == sorted(correlations)  # similarity to the source rises with guidance
    assert abs(correlations[0]) < 0.1


def test_guidance_of_zero_is_the_conditional_prediction():
    conditional, unconditional = draw(4), draw(4, seed=1)
    assert torch.equal(guided(conditional, unconditional, 0.0), conditional)
    torch.testing.assert_close(
        guided(conditional, unconditional, 1.0), 2 * conditional - unconditional
    )


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_a_second_implementation(level):
    """Diffusers' DDIM scheduler takes the same steps."""
    diffusers = pytest.importorskip("diffusers", reason="needs fedlt[diffusion]")
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=200, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(25)
    steps = steps_of(level, 25)
    times = scheduler.timesteps[25 - steps :]
    sources, noise = draw(2, 1, 4, 4).clamp(-1, 1), draw(2, 1, 4, 4, seed=1)

    def denoiser(z, time):
        return 0.3 * z.flip(3) + 0.001 * time

    z = scheduler.add_noise(sources, noise, times[:1].repeat(2))
    for time in times:
        z = scheduler.step(denoiser(z, int(time)), time, z).prev_sample
    found = denoise(sources, noise, denoiser, level=level, kept=alpha_bars(200), steps=25)
    torch.testing.assert_close(found, z, atol=1e-4, rtol=1e-4)


def test_measures_by_hand():
    """cos((3, 4), (4, 3)) = 24 / 25; two pixels 0 and 1 lie 0.5 from their mean."""
    first = torch.tensor([[3, 4], [2, 0]], dtype=torch.uint8).reshape(2, 1, 1, 2).numpy()
    second = torch.tensor([[4, 3], [0, 2]], dtype=torch.uint8).reshape(2, 1, 1, 2).numpy()
    assert similarities(first, second).tolist() == pytest.approx([0.96, 0.0])
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(3, 1, 1, 1).numpy()
    assert spread(images, torch.tensor([0, 0, 3]).numpy()) == pytest.approx((0.5 + 0.5 + 0) / 3)
