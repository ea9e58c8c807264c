"""Frames of a finished run against its files, counted anew with NumPy and plain Python."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import fedlt
from fedlt.check import TINY
from fedlt.errors import FedltError
from fedlt.runs.directory import RunDirectory

pd = pytest.importorskip("pandas", reason="needs fedlt[pandas]")


@pytest.fixture(scope="module")
def run(lab_factory):
    from fedlt.simulate import run as run_one

    config = lab_factory("frames").config(
        strategy="fedloge", rounds=4, evaluate={"every": 1, "personal_every": 3}
    )
    run_one(config)
    return fedlt.load(RunDirectory.of(config).path)


@pytest.fixture(scope="module")
def counts(run):
    """The arrays of the last evaluation."""
    folder = run.path / "evaluations"
    return {**np.load(folder / "round_4.npz"), **np.load(folder / "clients.npz")}


def test_rounds_are_the_lines_of_the_file(run):
    frame = run.rounds()
    rows = [json.loads(line) for line in (run.path / "rounds.jsonl").read_text().splitlines()]
    assert frame["round"].tolist() == [1, 2, 3, 4]
    assert frame["generic/accuracy"].tolist() == [row["generic/accuracy"] for row in rows]
    assert frame["personal/accuracy"].isna().tolist() == [True, True, False, False]
    kinds = frame.dtypes.astype(str)
    assert kinds["round"] == "int64"
    assert kinds["generic/accuracy"] == kinds["personal/gain"] == kinds["seconds"] == "float64"
    assert kinds["personal/clients"] == "Int64"  # a count with gaps
    assert kinds["generic/nonfinite"] == "int64"
    assert [*frame.columns][-1] == "seconds"


def test_classes(run, counts):
    frame = run.classes()
    confusion = counts["generic.confusion"]  # (H, C, C)
    with np.errstate(invalid="ignore"):
        recall = np.array([np.diag(one) / one.sum(axis=1) for one in confusion])
    heads = counts["generic.heads"].tolist()
    assert frame["class"].tolist() == list(range(len(recall[0])))
    assert frame["name"].tolist() == run.result["class_names"]
    assert frame["images"].tolist() == counts["client_counts"].sum(axis=0).tolist()
    assert frame["test_images"].tolist() == counts["test_counts"].tolist()
    np.testing.assert_array_equal(frame["generic/recall"], recall[0])
    for head, own in zip(heads[1:], recall[1:], strict=True):
        np.testing.assert_array_equal(frame[f"generic/{head}/recall"], own)
    shots = run.result["shots"]
    for group in ("many", "medium", "few"):
        assert frame["class"][frame["group"] == group].tolist() == shots[group]
    assert [*frame["group"].cat.categories] == ["few", "medium", "many"]
    grouped = frame.groupby("group", observed=True)["generic/recall"].mean()
    final = run.result["final"]
    assert {name: pytest.approx(value) for name, value in grouped.items()} == {
        name: final[f"generic/{name}"] for name in grouped.index
    }


def test_clients(run, counts):
    frame = run.clients()
    held = counts["client_counts"]  # (K, C)
    assert frame["images"].tolist() == held.sum(axis=1).tolist()
    assert frame["classes"].tolist() == (held > 0).sum(axis=1).tolist()
    final = run.result["final"]
    assert frame["accuracy"].mean() == pytest.approx(final["personal/accuracy"])
    assert frame["generic"].mean() == pytest.approx(final["personal/generic"])
    assert frame["gain"].mean() == pytest.approx(final["personal/gain"])
    assert frame["majority_guess"].mean() == pytest.approx(final["personal/majority_guess"])
    few = held[:, run.result["shots"]["few"]].sum(axis=1) > 0
    assert frame["owns_few"].tolist() == few.tolist()
    assert frame["participated"].dtype == bool
    kinds = frame.dtypes.astype(str).to_dict()
    assert kinds["client"] == kinds["images"] == kinds["classes"] == "int64"
    assert kinds["owns_few"] == "bool"


def test_a_client_that_was_not_scored_has_no_accuracy(lab):
    from fedlt.simulate import run as run_one

    config = lab.config(rounds=1, evaluate={"clients": 2}, data={"imbalance_factor": 1})
    run_one(config)
    frame = fedlt.load(RunDirectory.of(config).path).clients()
    assert frame["accuracy"].notna().sum() == 2
    assert frame["images"].notna().all()
    assert frame["owns_few"].isna().all()  # no groups here
    assert str(frame["owns_few"].dtype) == "boolean"


def test_a_missing_evaluation_is_named(lab):
    from fedlt.simulate import run as run_one

    config = lab.config(rounds=1)
    run_one(config)
    found = fedlt.load(RunDirectory.of(config).path)
    (found.path / "evaluations/round_1.npz").unlink()
    with pytest.raises(FedltError, match=r"round_1.npz is missing: the run has lost it"):
        found.classes()


def test_without_pandas_only_frames_fail(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    found = fedlt.load(run.path)
    assert (found.result["rounds"], len(found.partition)) == (4, 5)
    assert "<table>" in found._repr_html_()
    for frame in (found.rounds, found.classes, found.clients):
        with pytest.raises(
            FedltError, match=r"^frames need pandas .*: pip install 'fedlt\[pandas]'"
        ):
            frame()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    output = tmp_path_factory.mktemp("frames") / "runs"
    experiment = {**TINY, "name": "five", "rounds": 1, "output": str(output)}
    given = {"strategies": ["fedavg", "fedprox"], "seeds": [1, 2, 3, 4, 5]}
    return fedlt.compare(experiment, **given, jobs=1, quiet=True)


def test_runs_of_a_comparison(table):
    frame = table.frame("final")
    assert frame["method"].tolist() == ["fedavg"] * 5 + ["fedprox"] * 5
    assert frame["seed"].tolist() == [1, 2, 3, 4, 5] * 2
    run = table.runs["fedprox"][2]
    assert frame["generic/nll"][7] == run.result["final"]["generic/nll"]
    assert frame["seconds"][7] == run.result["seconds"]


def test_verdicts_are_those_of_the_file(table):
    frame = table.verdicts()
    stored = pd.read_csv(table.folder / "last_k_verdicts.csv")
    assert frame["method"].tolist() == ["fedprox"] * 2
    assert frame["verdict"].tolist() == stored["verdict"].tolist()
    for column in ("difference", "half", "p_holm", "clients_higher"):
        np.testing.assert_allclose(frame[column], stored[column], rtol=1e-12)
    assert frame["difference"].dtype == "float64"
