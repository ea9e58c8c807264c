"""Nothing leaves the machine unasked: Flower's telemetry is off however fedlt is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import importlib, os, sys
importlib.import_module(sys.argv[1])
from flwr.supercore import telemetry
print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ.get("RAY_USAGE_STATS_ENABLED"))
"""


def seen(module, **given):
    """Return what Flower took from the environment, read once when it was first imported."""
    names = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")
    environment = {n: v for n, v in os.environ.items() if n not in names} | given
    done = subprocess.run(
        [sys.executable, "-c", CODE, module],
        env=environment,
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("module", ["fedlt.simulate", "fedlt.cli"])
def test_telemetry_is_off(module):
    assert seen(module) == ["0", "0"]


def test_the_users_own_setting_stays():
    assert seen("fedlt.cli", FLWR_TELEMETRY_ENABLED="1", RAY_USAGE_STATS_ENABLED="1") == ["1", "1"]
