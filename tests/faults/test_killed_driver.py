"""``kill -9`` of the driver, then --resume: what an undisturbed run leaves, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_driver.py")


def disturbed(lab, *how, strategy="fedloge", **changes):
    """Run the script and return what it found."""
    config = lab.config(strategy=strategy, **changes)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(config.model_dump()), *map(str, how)],
        text=True,
        capture_output=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_some_moments_and_steps(lab):
    """Before a sync, a rename, a removal, ... of a checkpoint, an evaluation, a row, the result."""
    found = disturbed(lab, "steps", 7, 6)
    assert found == {"kills": 6, "runs": 6, "other": {}}
    found = disturbed(lab, "moments", 7, 2)
    assert found["other"] == {}


RAY = {"name": "ray", "workers": 1}


def check_interrupts(found, number, inside):
    """Nothing is lost, and the runs end as the undisturbed one does."""
    assert found["other"] == {}
    assert found["lost"] == []
    assert found["kills"] == number
    assert found["inside"] >= inside


@pytest.mark.timeout(900)
def test_interrupted_at_some_moments(lab):
    """Two of three in an evaluation; the only checkpoints are those of the interrupts."""
    found = disturbed(lab, "interrupts", 7, 3, rounds=5, checkpoint={"every": 50})
    check_interrupts(found, 3, 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_ten_random_moments(lab):
    """Up to five a run; personal states are in it."""
    found = disturbed(lab, "moments", 3, 10, rounds=5)
    assert found["kills"] >= 10
    assert found["other"] == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interrupted_at_ten_random_moments(lab):
    found = disturbed(lab, "interrupts", 3, 10, rounds=8, checkpoint={"every": 50})
    check_interrupts(found, 10, 5)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_on_ray_at_six_random_moments(lab):
    found = disturbed(lab, "moments", 3, 6, rounds=5, engine=RAY)
    assert found["kills"] >= 6
    assert found["other"] == {}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_interrupted_on_ray_at_six_random_moments(lab):
    found = disturbed(lab, "interrupts", 3, 6, rounds=8, checkpoint={"every": 50}, engine=RAY)
    check_interrupts(found, 6, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_step_of_a_write(lab):
    found = disturbed(lab, "steps", "all")
    assert found["kills"] == found["runs"] > 40
    assert found["other"] == {}
