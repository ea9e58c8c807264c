"""Every file of a run emptied, cut, flipped, of another seed, or gone: what every command answers.

The answer is the undisturbed numbers or one line that names the file; nothing is deleted.
"""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
from damage import COMMANDS, DAMAGES, Bench, files_of, make_runs, numbers

from fedlt.cli import main


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


@pytest.mark.slow
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_sample_of_all_damages(bench, stored, state, capsys):
    """Of every file one of the five damages and one of the six commands, in turn."""
    for number, name in enumerate(files_of(stored / state / "row" / "1")):
        kind, verb = DAMAGES[number % len(DAMAGES)], COMMANDS[number % len(COMMANDS)]
        bench.try_one(state, name, kind, verb, capsys)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_every_damage(bench, stored, state, verb, capsys):
    for name, kind in itertools.product(files_of(stored / state / "row" / "1"), DAMAGES):
        bench.try_one(state, name, kind, verb, capsys)


@pytest.mark.parametrize("name", ["config.yaml", "fingerprint.json", "rounds.jsonl"])
def test_a_partial_copy_among_seeds_is_named_and_never_skipped(bench, stored, name, capsys):
    """Two seeds, the first without one of its files: no table of the second alone."""
    for seed in ("1", "2"):
        shutil.copytree(stored / "finished" / "row" / seed, bench.here / "d" / seed)
    (bench.here / "d" / "1" / name).unlink()
    for command in (
        ["rescore", "d"],
        ["report", "d", "--output", "page.html"],
        ["realign", "d", "--method", "tau_norm"],
    ):
        assert main(command) == 2
        output = capsys.readouterr()
        assert f"d/1/{name} is missing: the run is not whole" in output.err
        assert output.out == ""
    assert not (bench.here / "page.html").exists()


def test_a_digit_that_was_edited_in_an_unfinished_run_does_not_survive(bench, stored, capsys):
    """Round 1 is in both checkpoints, so that neither can be used; round 2 only in the newest."""
    for number, code in ((1, 2), (2, 0)):
        folder = bench.fresh("unfinished")
        path = folder / "rounds.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        row = json.loads(lines[number - 1])
        row["generic/accuracy"] += 0.1
        lines[number - 1] = json.dumps(row) + "\n"
        path.write_text("".join(lines))
        assert main(["run", "a.yaml", "--resume"]) == code
        wanted = numbers(stored / "finished" / "row" / "1" / "result.json")
        if code == 0:
            assert numbers(folder / "result.json") == wanted
        else:
            assert "rounds.jsonl does not match its checksum" in capsys.readouterr().err
