"""Peak memory of a process: counted by the system, from the last reset on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fedlt.machine.peak_memory import peak_memory

MIB = 2**20


SCRIPT = f"""
from fedlt.machine.peak_memory import peak_memory, reset_peak_memory
before = peak_memory()
block = bytearray(256 * {MIB})
block[::4096] = b"x" * len(block[::4096])  # every page is there
del block
grown = peak_memory()
reset_peak_memory()
print(before, grown, peak_memory())
"""


@pytest.mark.skipif(peak_memory() is None, reason="the system does not tell")
def test_the_peak_stays_after_the_memory_is_given_back_until_it_is_reset():
    """In a process of its own: one that has trained keeps what it frees."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    before, grown, after = map(int, done.stdout.split())
    assert 250 * MIB < grown - before < 300 * MIB
    assert after < before + 50 * MIB


def test_a_result_says_it(lab):
    assert 50 * MIB < lab.run().result["peak_memory"] < 8192 * MIB


@pytest.mark.ray
def test_workers_are_added(lab):
    alone = lab.run().result["peak_memory"]
    two = lab.run(engine={"name": "ray", "workers": 2}).result["peak_memory"]
    assert two > alone + 2 * 50 * MIB
