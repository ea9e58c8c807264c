"""The benchmarks with peers: how turns are taken, and the answer where a peer is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"

PEER = """
import sys
sys.path.insert(0, {folder!r})
from turns import Turns
turns = Turns()
print("noise on the standard output")
count, more = 0, turns.next(name="quick")
while more:
    count += 1
    more = turns.next()
print(count, file=open(sys.argv[1], "w"))
"""

BENCHMARK = """
import sys
sys.path.insert(0, {folder!r})
from turns import Peer, alternate, ratios
peers = [Peer([{script!r}, log]) for log in sys.argv[1:]]
for peer in peers:
    peer.wait()
    assert peer.facts == {{"name": "quick"}}
seconds = alternate({{"both": peers, "first": peers[:1]}}, 4, warm_up=2)
assert {{name: len(values) for name, values in seconds.items()}} == {{"both": 4, "first": 4}}
assert ratios([3.0, 2.0, 8.0], [1.0, 2.0, 4.0]) == {{"median": 2.0, "min": 1.0, "max": 3.0}}
for peer in peers:
    peer.__exit__(None, None, None)
"""


def test_peers_take_turns_until_the_benchmark_ends(tmp_path: Path) -> None:
    """A peer in two teams has 2 * (2 + 4) turns, the other 2 + 4; what they print does no harm."""
    script = tmp_path / "peer.py"
    script.write_text(PEER.format(folder=str(FOLDER)))
    code = BENCHMARK.format(folder=str(FOLDER), script=str(script))
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    subprocess.run([sys.executable, "-c", code, *map(str, logs)], check=True, timeout=120)
    assert [log.read_text() for log in logs] == ["12\n", "6\n"]


def test_missing_pfl_is_one_line(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    command = [sys.executable, FOLDER / "pfl_round.py", "--pfl-python", bare]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"pfl_round: {bare} has no package pfl: pip install 'pfl[pytorch]' there, or name another "
        "interpreter with --pfl-python\n"
    )
