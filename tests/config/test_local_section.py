"""The section ``local``: steps or epochs, Nesterov's momentum, and schedules over the rounds."""

from __future__ import annotations

import math

import pytest
import torch

from fedlt.config import LocalConfig, ScheduleConfig, load_config, settings_of, to_yaml
from fedlt.errors import FedltError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("name: one\nrounds: 4\nlocal: {epochs: 2}\n")
    return path


def test_an_override_of_either_replaces_the_files_other(file):
    config = load_config(file, ["local.steps=7"])
    assert (config.local.epochs, config.local.steps) == (None, 7)
    file.write_text(to_yaml(config))
    assert load_config(file) == config
    back = load_config(file, ["local.epochs=3"]).local
    assert (back.epochs, back.steps) == (3, None)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["local.steps=3", "local.epochs=2"], "local.steps: give steps or epochs, not both"),
        (["local.epochs=null"], "local.epochs: null needs steps"),
        (["local.steps=0"], "local.steps is 0; expected at least 1"),
        (["local.epochs=0"], "local.epochs is 0; expected at least 1"),
        (["local.nesterov=true"], "local.nesterov: needs a momentum above 0"),
        (
            ["local.nesterov=true", "local.momentum=0.9", "local.optimizer=adamw"],
            "local.nesterov: needs optimizer: sgd",
        ),
        (["local.nesterov=1"], "local.nesterov is 1; expected true or false"),
        (["local.clip=0.0"], "local.clip is 0.0; expected more than 0"),
        (["local.schedule.decay=0.0"], "local.schedule.decay is 0.0; expected more than 0"),
        (["local.schedule=linear"], "local.schedule"),
        (
            ["local.schedule={cosine: true, decay: 0.9}"],
            "local.schedule.cosine: .* or by decay, not by both",
        ),
        (
            ["local.schedule={cosine: true, drops: [0.5]}"],
            "local.schedule.cosine: .* or by drops, not by both",
        ),
        (["local.schedule={cosine: true, warmup: 1}"], "warmup: 1 leaves no round"),
    ],
)
def test_combinations_without_a_meaning_are_refused(file, overrides, reason):
    with pytest.raises(FedltError, match=reason) as told:
        load_config(file, overrides)
    assert "\n" not in str(told.value)


def test_a_file_with_both_is_told_how_to_choose(file):
    file.write_text("name: one\nrounds: 4\nlocal: {epochs: 2, steps: 3}\n")
    with pytest.raises(FedltError, match="give steps or epochs, not both; epochs is 2"):
        load_config(file)


def test_files_without_the_new_keys_have_the_settings_of_before(file):
    """A run that was made before these keys existed is still this file's run."""
    new = {"steps", "clip", "nesterov", "schedule.decay", "schedule.cosine"}
    assert not {f"local.{name}" for name in new} & set(settings_of(load_config(file)))
    used = ["local.steps=3", "local.clip=1.0", "local.schedule.decay=0.9"]
    assert {"local.steps", "local.clip", "local.schedule.decay"} <= set(
        settings_of(load_config(file, used))
    )


def test_the_task_in_steps():
    assert LocalConfig(epochs=3).task_steps(4) == 12
    assert (LocalConfig(steps=5).task_steps(4), LocalConfig(steps=5).task_steps(0)) == (5, 0)
    assert LocalConfig(steps=5).of_one_epoch().task_steps(4) == 4


def test_decay_is_pytorchs_exponential_schedule():
    """FedNTD's 0.99 a round, on top of a warm-up over two of four rounds."""
    plain = ScheduleConfig(decay=0.99)
    assert [plain.at(r, 4) for r in range(1, 5)] == pytest.approx([1, 0.99, 0.99**2, 0.99**3])
    warm = ScheduleConfig(decay=0.5, warmup=0.5)
    assert [warm.at(r, 4) for r in range(1, 5)] == [0.5, 0.5, 0.25, 0.125]


def test_cosine_is_pytorchs_annealing():
    """A round is torch's epoch from 0; after a warm-up over W rounds, round W is its epoch 0."""
    for warmup, first in ((0.0, 1), (0.2, 2), (0.25, 3)):
        rounds = 10
        schedule = ScheduleConfig(cosine=True, warmup=warmup)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds - first + 1)
        for round_ in range(first, rounds + 1):
            expected = optimizer.param_groups[0]["lr"]
            assert schedule.at(round_, rounds) == pytest.approx(expected, abs=1e-12)
            optimizer.step()
            torchs.step()
        grown = [schedule.at(r, rounds) for r in range(1, first)]
        assert grown == pytest.approx([r / (warmup * rounds) for r in range(1, first)])
    assert schedule.at(10, 10) == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)


def test_cosine_has_a_short_name(file):
    assert load_config(file, ["local.schedule=cosine"]).local.schedule == ScheduleConfig(
        cosine=True
    )
