"""``local.schedule``: learning rates over the rounds, for every method that reads them."""

from __future__ import annotations

import pytest
import torch

from fedlt.check import Bench
from fedlt.config import LocalConfig, ScheduleConfig, load_config
from fedlt.errors import FedltError

STEPS = {"warmup": 0.025, "drops": [0.8, 0.9], "factor": 0.01}


@pytest.mark.parametrize(
    ("round_", "factor"),
    [(1, 0.2), (4, 0.8), (5, 1), (160, 1), (161, 0.01), (180, 0.01), (181, 1e-4), (201, 1e-4)],
)
def test_the_schedule_of_ldam_drw(round_, factor):
    """Cao et al., NeurIPS 2019: of 200 epochs 5 grow, and two drops by 100 follow 160 and 180."""
    schedule = ScheduleConfig.model_validate(STEPS)
    assert schedule.at(round_, 200) == pytest.approx(factor)


@pytest.mark.parametrize("rounds", range(1, 200))
def test_a_drop_follows_its_round_whatever_is_rounded(rounds):
    for last in range(1, rounds):
        schedule = ScheduleConfig(drops=(last / rounds,), factor=0.5)
        assert (schedule.at(last, rounds), schedule.at(last + 1, rounds)) == (1, 0.5)


def test_both_rates_are_scaled_and_nothing_else():
    local = LocalConfig(lr=0.4, head_lr=0.2, schedule=ScheduleConfig(drops=(0.5,)))
    assert local.at(5, 10) is local
    later = local.at(6, 10)
    assert (later.lr, later.head_lr) == pytest.approx((0.04, 0.02))
    assert later.model_copy(update={"lr": 0.4, "head_lr": 0.2}) == local
    assert LocalConfig(schedule=ScheduleConfig(drops=(0.5,))).at(6, 10).head_lr is None


@pytest.mark.parametrize("strategy", ["fedavg", "apfl", "scaffold"])
def test_a_task_is_that_of_the_scaled_rate(lab, strategy):
    """With a warm-up over a run of two rounds, round 1 has half the rates and round 2 all."""
    settings = {"strategy": strategy, "rounds": 2}
    grown = Bench(lab.federation(**settings, local={"lr": 0.1, "schedule": {"warmup": 1.0}}))
    plain = {lr: Bench(lab.federation(**settings, local={"lr": lr})) for lr in (0.05, 0.1)}
    for round_, lr in ((1, 0.05), (2, 0.1)):
        found = grown.worker.train(grown.client(1, round_=round_)).sums
        kept = {name: tensor.clone() for name, tensor in found.items()}
        bench = plain[lr]
        expected = bench.worker.train(bench.client(1, round_=round_)).sums
        assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ({"drops": [160]}, "at most 1"),
        ({"drops": 0.5}, "a list"),
        ({"factor": 0.0}, "more than 0"),
        ({"warmup": -0.1}, "at least 0"),
    ],
)
def test_bad_values_are_refused(tmp_path, schedule, reason):
    path = tmp_path / "one.yaml"
    path.write_text(f"name: one\nrounds: 3\nlocal: {{schedule: {schedule}}}\n".replace("'", ""))
    with pytest.raises(FedltError, match=rf"local.schedule.*{reason}"):
        load_config(path)
