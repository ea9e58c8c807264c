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
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(900)
def test_killed_at_some_moments_and_steps(lab):
    """Before a sync, a rename, a removal, ... of a checkpoint, an evaluation, a row, the result."""
    found = disturbed(lab, "steps", 7, 6)
    assert found == {"kills": 6, "runs": 6, "other": {}}
    found = disturbed(lab, "moments", 7, 2)
    assert found["other"] == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_twenty_random_moments(lab):
    """Up to five a run; personal states are in it."""
    found = disturbed(lab, "moments", 3, 20, rounds=5)
    assert found["kills"] >= 20
    assert found["other"] == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_step_of_a_write(lab):
    found = disturbed(lab, "steps", "all")
    assert found["kills"] == found["runs"] > 40
    assert found["other"] == {}
