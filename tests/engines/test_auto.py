"""``engine: auto`` and the estimate: what is chosen, what is said, and what a resumed run does."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from fedlt.engines import engine_class
from fedlt.engines.auto import weigh_engines
from fedlt.engines.probe import Probe, take_probe
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.progress import Progress
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run
from fedlt.worker.scorer import Host
from strategies import FedAvg

PROBE = Probe(
    batch_seconds=0.1,
    task_seconds=2.0,
    longest_seconds=3.0,
    evaluation_seconds=5.0,
    evaluations=4,
    personal_seconds=8.0,
    rounds=10,
    cohort=6,
    parameters=0,
    memory=2**30,
    data=2**28,
)


def sides(federation):
    return make_server_half(federation.view), federation


def host_of(federation):
    return Host(federation.shares, federation.observer)


class Notes(Progress):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_serial_estimate_by_hand(lab):
    """10 rounds of 6 tasks of 2 s, 4 evaluations of 5 s, 8 s of personal views; small messages."""
    estimate = engine_class("serial").estimate(*sides(lab.federation()), PROBE)
    assert estimate.seconds == pytest.approx(148, abs=0.1)
    assert (estimate.memory, estimate.clients) == (2**30, 1)


def test_ray_estimate_by_hand(lab):
    """Two workers: 10 rounds of 6 s, 4 evaluations of 2.5 s, views of 4 s; data are held once."""
    federation = lab.federation(engine={"name": "ray", "workers": 2})
    estimate = engine_class("ray").estimate(*sides(federation), PROBE)
    assert 74 < estimate.seconds < 84
    assert estimate.memory == 2**30 + 2 * (2**30 - 2**28)
    assert estimate.clients == 2


def test_the_longest_task_bounds_a_round(lab):
    federation = lab.federation(engine={"name": "ray", "workers": 2})
    few = replace(PROBE, cohort=2, longest_seconds=7.0, evaluations=0, personal_seconds=0)
    assert 70 < engine_class("ray").estimate(*sides(federation), few).seconds < 80


@pytest.mark.parametrize(
    ("task", "batch", "picked"),
    [(1e-4, 1e-9, "serial"), (100.0, 1e-9, "ray"), (100.0, 1e9, "stacked")],
)
def test_auto_picks_the_faster_one(lab, monkeypatch, task, batch, picked):
    """A serial batch of a nanosecond makes stacking look slow, one of 30 years fast."""
    federation = lab.federation(engine={"name": "auto", "workers": 2})
    server, host = make_server_half(federation.view), host_of(federation)
    probe = replace(
        PROBE, batch_seconds=batch, task_seconds=task, longest_seconds=task, evaluations=0
    )
    monkeypatch.setattr("fedlt.engines.auto.take_probe", lambda *_: probe)
    choice = weigh_engines("auto", server, host, federation)
    assert choice.name == picked
    assert choice.lines()[0].startswith(f"engine: auto picks {picked}; estimates of the others: ")


def test_probe_measures_the_real_task_and_leaves_it_alone(lab):
    federation = lab.federation(strategy="fedloge", rounds=7, clients_per_round=2)
    server, host = make_server_half(federation.view), host_of(federation)
    before = {name: tensor.clone() for name, tensor in server.state.broadcast.items()}
    probe = take_probe(server, host)
    assert 0 < probe.task_seconds <= probe.longest_seconds
    assert probe.evaluation_seconds > 0
    assert (probe.rounds, probe.cohort) == (7, 2)
    assert probe.parameters == sum(tensor.numel() for tensor in before.values())
    assert all(before[name].equal(tensor) for name, tensor in server.state.broadcast.items())


def test_a_run_under_auto_tells_its_choice_keeps_it_and_changes_no_bit(lab, reference):
    notes, config = Notes(), lab.fresh(engine={"name": "auto", "workers": 1})
    run(config, progress=notes, estimate=True)
    directory = RunDirectory.of(config)
    assert directory.rounds()[-1]["generic/accuracy"] == reference().rows[-1]["generic/accuracy"]
    choice, estimate = [line for line in notes.lines if "estimate" in line]
    assert re.match(
        r"engine: auto picks serial; estimates of the others: ray \d+:\d\d, stacked", choice
    )
    assert re.match(r"estimate: \d+:\d\d for \d+ rounds, [\d.]+ GiB of memory, 1 ", estimate)
    assert directory.config().engine.name == "serial"
    assert directory.engine(lab.config(engine={"name": "auto"})) == "serial"
    assert directory.engine(lab.config(engine={"name": "ray"})) == "ray"


def test_a_method_that_fails_in_the_trial_is_refused_before_anything_is_written(lab, tmp_path):
    (tmp_path / "broken.py").write_text(
        "from strategies import FedAvg\n\n\n"
        "class Broken(FedAvg):\n"
        "    def objective(self, client, batch):\n"
        "        raise KeyError('teacher')\n",
        encoding="utf-8",
    )
    config = lab.fresh(strategy=f"{tmp_path}/broken.py:Broken")
    with pytest.raises(FedltError, match=r"Broken with cross_entropy: a trial .* fails: .*teacher"):
        run(config, progress=Notes(), estimate=True)
    assert not RunDirectory.of(config).path.exists()


# ---- runs in which scoring dominates


class Tuned(FedAvg):
    """Tunes every client for 10 ms before it is scored; nothing else takes so long."""

    @property
    def adapt_epochs(self):
        return 1

    def adapt(self, client):
        Tuned.calls += 1
        time.sleep(0.01)
        return client.personal

    calls = 0


SCORING = {
    "rounds": 6,
    "clients_per_round": 2,
    "partition": {"num_clients": 30},
    "evaluate": {"every": 2},
}


def test_an_estimate_counts_the_tuning_before_scoring(lab, monkeypatch):
    """30 clients, views after rounds 2, 4, 6: 90 times 10 ms, whoever was sampled.

    The tuning is counted, and its seconds are those of a sleep, which no other work shortens.
    """
    monkeypatch.setattr("fedlt.simulate.resolve_strategy", lambda config: Tuned())
    config, notes = lab.fresh(**SCORING), Notes()
    federation = lab.federation(**SCORING).changed(strategy=Tuned())
    server, host = make_server_half(federation.view), host_of(federation)
    probe = take_probe(server, host)
    assert 0.9 <= probe.personal_seconds < 1.8
    monkeypatch.setattr(Tuned, "calls", 0)
    seconds = run(config, progress=notes)["seconds"]
    assert Tuned.calls == 90
    estimate = engine_class("serial").estimate(server, federation, probe)
    assert seconds / 2 < estimate.seconds < 2 * seconds


@pytest.mark.parametrize("strategy", ["ditto", "fedavg_ft", "fedbabu", "fedetf"])
def test_estimates_where_scoring_dominates(lab, record_property, strategy):
    """Measured on a shared machine: factors in the properties; the bound leaves room for others."""
    changes = {**SCORING, "strategy": strategy}
    federation = lab.federation(**changes)
    server = make_server_half(federation.view)
    estimate = engine_class("serial").estimate(
        server, federation, take_probe(server, host_of(federation))
    )
    factor = estimate.seconds / run(lab.fresh(**changes))["seconds"]
    record_property("factor", round(factor, 2))
    assert 1 / 4 < factor < 4
