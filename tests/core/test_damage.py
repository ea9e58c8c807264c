"""Every file of a run emptied, cut, flipped, of another seed, or gone: what every command answers.

The answer is the undisturbed numbers or one line that names the file; nothing is deleted.
"""

from __future__ import annotations

import pytest
from damage import COMMANDS, DAMAGES, Bench, files_of, make_runs


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    make_runs(folder)
    return folder


@pytest.fixture
def bench(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return Bench(stored, tmp_path)


def every_case(stored, state):
    files = files_of(stored / state / "row" / "1")
    return [(name, kind, verb) for name in files for kind in DAMAGES for verb in COMMANDS]


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_sample_of_all_damages(bench, stored, state, capsys):
    """Of every file one of the five damages and one of the six commands, in turn."""
    for number, name in enumerate(files_of(stored / state / "row" / "1")):
        kind, verb = DAMAGES[number % len(DAMAGES)], COMMANDS[number % len(COMMANDS)]
        bench.try_one(state, name, kind, verb, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_every_damage(bench, stored, state, capsys):
    for case in every_case(stored, state):
        bench.try_one(state, *case, capsys)
