"""Progress as lines and as a bar."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedlt import progress as module
from fedlt.progress import LineProgress, LiveProgress, Progress, make_progress


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=terminal)


def test_lines_at_every_tenth():
    out = console(terminal=False)
    progress = make_progress(out, "seed 2")
    assert isinstance(progress, LineProgress)
    progress.start(25)
    for number in range(1, 26):
        progress.advance(number, "generic 61.2 %" if number == 6 else "")
    progress.stop()
    lines = out.file.getvalue().splitlines()
    numbers = [int(line.split("round ")[1].split()[0]) for line in lines]
    assert numbers == [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]
    assert lines[0] == "seed 2: round 3 of 25, 0:00 left"
    assert lines[-1] == "seed 2: round 25 of 25, 0:00 left, generic 61.2 %"


def test_lines_of_a_short_run_and_a_resumed_one():
    out = console(terminal=False)
    progress = LineProgress(out)
    progress.start(3, done=1)
    progress.advance(2)
    progress.advance(3)
    assert out.file.getvalue().splitlines() == [
        "going on after round 1 of 3",
        "round 2 of 3, 0:00 left",
        "round 3 of 3, 0:00 left",
    ]


def test_remaining_time_counts_only_this_session(monkeypatch):
    now = iter([0.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: 0.0)
    out = console(terminal=False)
    progress = LineProgress(out)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    progress.start(20, done=8)
    progress.advance(10)  # 2 rounds in 20 s, 10 are left
    assert out.file.getvalue().splitlines()[-1] == "round 10 of 20, 1:40 left"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3723.4, "1:02:03")])
def test_durations(seconds, text):
    assert module.round_time(seconds) == text


def test_bar_shows_rounds_text_and_notes():
    out = console(terminal=True)
    progress = make_progress(out, "seed 1")
    assert isinstance(progress, LiveProgress)
    progress.start(4, done=1)
    progress.advance(2, "generic 50.0 %")
    progress.note("client 3 [left] out")
    progress.advance(4)
    progress.stop()
    progress.stop()
    text = out.file.getvalue()
    assert "client 3 [left] out" in text
    assert "4/4" in text
    assert "generic 50.0 %" in text


def test_silent():
    progress = Progress()
    progress.start(2)
    progress.advance(1, "x")
    progress.note("y")
    progress.stop()
