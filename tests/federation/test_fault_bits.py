"""Runs with every kind of fault: the same bits on every engine, and after resume."""

from __future__ import annotations

import pytest

STOCK = "flwr.serverapp.strategy:FedAdam"
EVERYTHING = {  # every kind happens within a few rounds
    "lost": {"rate": 0.25, "aim": "few"},
    "straggler": {"deadline": 0.8, "spread": 0.3, "jitter": 0.3},
    "corrupt": {"share": 0.4, "rate": 0.6, "kind": "scale", "factor": 50.0},
    "stale": {"rate": 0.4, "rounds": 2},
    "detect": {"max_ratio": 10.0},
}
WHOLE = {"clients_per_round": None, "rounds": 4, "faults": EVERYTHING}
METHODS = {
    "fedavg": {"strategy": "fedavg", **WHOLE},
    "fedloge": {
        "strategy": "fedloge",
        **WHOLE,
        "faults": {**EVERYTHING, "late": {"share": 0.4, "first": 2, "last": 4}},
    },
    "FedAdam": {"strategy": {"name": STOCK, "eta": 0.05}, **WHOLE},
    "local": {"batchnorm": "local", **WHOLE},
}
methods = pytest.mark.parametrize("name", METHODS)


def test_every_kind_happens(reference):
    counts = dict.fromkeys(("lost", "partial", "corrupt", "stale", "huge"), 0)
    for changes in METHODS.values():
        result = reference(**changes).result["faults"]
        counts = {kind: counts[kind] + result[kind] for kind in counts}
    assert min(counts.values()) > 0


@methods
def test_resume_equals_the_undisturbed_run(lab, reference, name):
    changes = METHODS[name]
    whole = reference(**changes)
    for after in (1, 3):
        resumed = lab.resume(lab.stopped(after, **changes))
        assert resumed.bits == whole.bits
        assert resumed.result["faults"] == whole.result["faults"]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("fedloge", 2),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("fedloge", 1), ("fedloge", 3), ("FedAdam", 2))
        ),
    ],
)
def test_ray_gives_the_bits_of_serial(lab, reference, name, workers):
    outcome = lab.run(**METHODS[name], engine={"name": "ray", "workers": workers})
    assert outcome.bits == reference(**METHODS[name]).bits
    assert outcome.result["faults"] == reference(**METHODS[name]).result["faults"]
