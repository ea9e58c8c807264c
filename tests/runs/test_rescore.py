"""Numbers cut again from saved evaluations: those of the run, or of a run with other settings."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from fedlt.cli import main
from fedlt.comparing.better_off import higher_and_lower
from fedlt.comparing.stored import collect
from fedlt.data.shots import parse_groups
from fedlt.errors import FedltError
from fedlt.evaluation.priors import TEST_PRIORS
from fedlt.runs.directory import RunDirectory
from fedlt.runs.evaluations import load_evaluation
from fedlt.runs.rescoring import Cut, rescore

MOMENTS = ("final", "last_k", "selected", "best_on_test")
# Three heads, evaluations of the generic view alone, a client that never takes part.
CHANGES = {
    "strategy": "fedloge",
    "rounds": 4,
    "clients_per_round": 2,
    "seed": 3,
    "evaluate": {"every": 1, "personal_every": 2, "selected_round": 2},
}


def with_view(**evaluate):
    return {**CHANGES, "evaluate": {**CHANGES["evaluate"], **evaluate}}


def numbers(result, moment):
    """Return a moment's numbers without test priors, which no run reports itself."""
    found = result[moment].items()
    return {name: v for name, v in found if "/under_" not in name and name != "seconds"}


@pytest.mark.parametrize(
    "changes",
    [
        CHANGES,
        with_view(local_test="sampled", shots="cumulative"),
        with_view(local_test="reference"),
        {**CHANGES, "strategy": "local_only"},  # without a generic model
        {**CHANGES, "data": {"imbalance_factor": 1.0}},  # without groups
        {**with_view(every=4, personal_every=4, selected_round=4), "diagnostics": {"every": 3}},
    ],
)
def test_under_the_runs_own_settings_every_number_is_that_of_its_result(reference, changes):
    run = reference(**changes)
    again = rescore(run.directory, Cut())
    for moment in MOMENTS:
        assert numbers(again, moment) == numbers(run.result, moment)
    assert again["shots"] == run.result["shots"]


@pytest.mark.parametrize(
    ("evaluate", "cut"),
    [
        ({"shots": "cumulative"}, Cut(shots="cumulative")),
        ({"shots": "rank"}, Cut(shots="rank")),
        ({"local_test": "reference"}, Cut(local_test="reference")),
    ],
)
def test_another_cut_is_the_run_with_those_settings(reference, evaluate, cut):
    """The other run was trained and scored so; only its hits under the test's mask are not here."""
    wanted = reference(**with_view(**evaluate)).result
    found = rescore(reference(**CHANGES).directory, cut)
    for moment in MOMENTS:
        own = {n: v for n, v in numbers(wanted, moment).items() if "test_held" not in n}
        assert numbers(found, moment) == own


def test_a_mask_puts_the_masked_hits_in_place_of_the_others(reference):
    run = reference(**CHANGES)
    again = rescore(run.directory, Cut(mask="held"))
    held = again["final"]
    assert np.nanmean(again["client_accuracies"]) == pytest.approx(held["personal/accuracy"])
    for name in ("accuracy", "generic", "gain"):
        assert held[f"personal/{name}"] == run.result["final"][f"personal/{name}_held"]
    assert held["personal/worst"] >= run.result["final"]["personal/worst"]
    assert held["generic/accuracy"] == run.result["final"]["generic/accuracy"]
    other = reference(**with_view(local_test="reference"))
    tested = rescore(other.directory, Cut(mask="test"))["final"]
    assert tested["personal/accuracy"] == other.result["final"]["personal/accuracy_test_held"]


def test_test_priors_by_a_loop_over_classes(reference):
    """Backward 10 over four ranks: 10^(-3/3), 10^(-2/3), 10^(-1/3), 1, divided by their sum."""
    run = reference(**CHANGES)
    final = rescore(run.directory, Cut())["final"]
    stored = load_evaluation(run.directory.evaluations / "round_4.npz")
    order = sorted(range(4), key=lambda c: (-stored.client_counts.sum(axis=0)[c], c))
    prior = {label: 10 ** -((3 - rank) / 3) for rank, label in enumerate(order)}
    total = sum(prior.values())
    confusion = stored.generic.confusion[0]
    generic = sum(p * confusion[c, c] / 10 for c, p in prior.items()) / total
    assert final["generic/under_backward_10"] == pytest.approx(generic)
    own = stored.personal
    means = [sum(p * row[c] / 10 for c, p in prior.items()) / total for row in own.hits[:, 0]]
    assert final["personal/under_backward_10"] == pytest.approx(np.mean(means))
    assert final["generic/under_uniform"] == pytest.approx(final["generic/balanced"])
    assert len(TEST_PRIORS) == 11


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ({"mask": "test"}, "round_1.npz|were not counted; only evaluate.local_test: reference"),
        ({"local_test": "sampled"}, r"sampled needs other scores; on all test images here"),
        ({"local_test": "exactt"}, "unknown view 'exactt'; nearest: 'exact'"),
        ({"shots": "ranks"}, "unknown scheme 'ranks'; nearest: 'rank'"),
        ({"shots": "0/1/9"}, "there is no class 9, only 0 to 3"),
        ({"mask": "hold"}, "mask: unknown 'hold'; nearest: 'held'"),
    ],
)
def test_what_cannot_be_cut_is_answered_in_one_line(reference, cut, words):
    run = reference(**CHANGES)
    with pytest.raises(FedltError, match=words) as error:
        rescore(run.directory, Cut(**cut))
    assert "\n" not in str(error.value)


def test_an_evaluation_that_is_gone_and_a_run_that_is_not_finished(lab):
    run = lab.run(rounds=2)
    (run.directory.evaluations / "round_1.npz").unlink()
    with pytest.raises(FedltError, match=r"round_1\.npz is missing"):
        rescore(run.directory, Cut())
    (run.directory.path / "result.json").unlink()
    with pytest.raises(FedltError, match="is no finished run"):
        rescore(run.directory, Cut())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", "{}"),
        ("rounds.jsonl", "{\n"),
        ("rounds.jsonl", "[]\n"),
        ("rounds.jsonl", '{"generic/accuracy": 0.5}\n'),
        ("rounds.jsonl", ""),
        ("rounds.jsonl", None),
    ],
)
def test_a_damaged_run_is_named(reference, tmp_path, name, content):
    run = RunDirectory(shutil.copytree(reference(**CHANGES).directory.path, tmp_path / "1"))
    (run.path / name).unlink()
    if content is not None:
        (run.path / name).write_text(content)
    with pytest.raises(FedltError, match=str(run.path / name)):
        rescore(run, Cut())


def test_rounds_that_were_looked_into_and_not_scored_are_left_out(lab):
    """Rounds 3 and 4 are scored; round 2 has diagnostics only."""
    run = lab.run(rounds=4, evaluate={"every": 3}, diagnostics={"every": 2, "clients": 1})
    assert [row["round"] for row in run.directory.rounds()] == [2, 3, 4]
    assert numbers(rescore(run.directory, Cut()), "best_on_test") == run.result["best_on_test"]


def test_a_run_in_a_folder_of_any_name_and_the_same_seed_twice(lab, capsys):
    one = lab.run(rounds=1).directory.path
    shutil.copytree(one, one.with_name("copy"))
    assert main(["rescore", str(one.with_name("copy"))]) == 0
    assert main(["rescore", str(one), str(one.with_name("copy"))]) == 2
    assert "has two runs with seed 1" in capsys.readouterr().err
    assert main(["rescore", str(one), "--which", "selected"]) == 2
    assert "no evaluate.selected_round" in capsys.readouterr().err


def test_a_folder_of_seeds_and_of_rows_is_ambiguous(lab, capsys):
    one = lab.run(rounds=1).directory.path
    shutil.copytree(one, one.with_name("ditto") / "1")
    for verb in ("rescore", "report"):
        assert main([verb, str(one.parent)]) == 2
        error = capsys.readouterr().err
        assert str(one) in error
        assert str(one.with_name("ditto")) in error


def test_groups_given_as_class_ids():
    groups = parse_groups("0,2/ 3-4/9", 10)
    assert (groups.many, groups.medium, groups.few) == ((0, 2), (3, 4), (9,))
    assert parse_groups("0-1//2", 3).medium == ()
    for text, words in [("0/1", "expected"), ("0/1/x", "'x' is not"), ("0-2/2/", "named twice")]:
        with pytest.raises(FedltError, match=words):
            parse_groups(text, 10)


def test_the_command_prints_tables_and_writes_where_it_is_told(lab, tmp_path, capsys):
    for method in ("fedavg", "fedloge"):
        for seed in (1, 2):
            lab.run(name=method, strategy=method, seed=seed)
    before = {path: path.stat().st_mtime_ns for path in lab.output.rglob("*")}
    folder = tmp_path / "again"
    arguments = ["rescore", str(lab.output), "--shots", "0/1,2/3", "--against", "fedloge"]
    assert main([*arguments, "--output", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "rescored shots=0/1,2/3, last_k, split final, seeds 1, 2" in shown
    assert "Against fedloge, paired over 2 seeds: undecided" in shown
    assert "expected calibration error" in shown
    assert " F50 " in shown
    assert {path: path.stat().st_mtime_ns for path in lab.output.rglob("*")} == before
    rows = list(csv.DictReader((folder / "last_k_metrics.csv").read_text().splitlines()))
    names = {row["metric"] for row in rows}
    assert {"generic/few_ece", "personal/under_forward_50"} <= names
    assert "| B50 |" in (folder / "last_k_personal_priors.md").read_text()
    assert "| fedloge | " in (folder / "last_k_calibration.md").read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--which", "lastk"], "--which: unknown 'lastk'; nearest: 'last_k'"),
        (["--against", "b"], "against: no row 'b'"),
        (["--mask", "x"], "mask: unknown 'x'"),
        (["nowhere"], "nowhere is not a folder"),
    ],
)
def test_wrong_arguments_get_one_line(lab, capsys, more, words):
    path = lab.run(rounds=1).directory.path
    assert main(["rescore", str(path), *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_rows_of_two_comparisons_keep_apart(lab, tmp_path):
    for folder in ("one", "two"):
        for seed in (10, 2):
            lab.run(output=str(tmp_path / folder), name="a", seed=seed, rounds=1)

    def seeds(*paths):
        rows = collect([tmp_path / path for path in paths]).rows
        return {label: [int(run.path.name) for run in runs] for label, runs in rows.items()}

    assert seeds("one", "two/a/2") == {"one/a": [2, 10], "two/a": [2]}
    assert seeds("one", "one/a/2") == {"a": [2, 10]}  # a run that is named twice counts once
    with pytest.raises(FedltError, match="holds no run"):
        collect([tmp_path])
    shutil.copytree(tmp_path / "two", tmp_path / "three/one")
    with pytest.raises(FedltError, match="there is another row called 'one/a'"):
        seeds("one", "three/one")
    (tmp_path / "one/last_k.csv").write_text("method,seed\nA,2\n")
    assert seeds("one") == {"A": [2, 10]}


def test_clients_are_counted_under_the_same_mask(reference):
    """Masked against not masked, client by client: none is lower, and the gains are the means'."""
    run = reference(**CHANGES)
    plain, held = (rescore(run.directory, Cut(mask=mask)) for mask in ("none", "held"))
    higher, lower = higher_and_lower([held], [plain])
    gaps = np.subtract(held["client_accuracies"], plain["client_accuracies"])
    assert (higher, lower) == (np.mean(gaps > 1e-12), 0.0)
    assert higher_and_lower([plain], [run.result | {"path": str(run.directory.path)}]) == (0, 0)
