"""The price of privacy: points lost, split and paired, against sums by hand; and who is clipped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("dp_accounting")

from fedlt.cli import main
from fedlt.comparing.privacy_price import (
    clipped_sheet,
    epsilon_cells,
    find_prices,
    price_sheet,
    privacy_notes,
)
from fedlt.comparing.sheet import text_of
from fedlt.federation.privacy_record import tail_owners
from fedlt.report.figures.privacy import privacy_price
from fedlt.report.finished import Method, RunRecord

MLP = {"name": "mlp", "width": 8, "norm": "none"}


@pytest.fixture(scope="module")
def results(lab_factory):
    lab, found = lab_factory("twins"), {}
    rows = {
        "plain": {"noise_multiplier": 0.0},
        "clipped": {"norm": 0.5, "noise_multiplier": 0.0},
        "private": {"norm": 0.5, "noise_multiplier": 0.2},
        "other norm": {"norm": 0.1, "noise_multiplier": 0.2},
        "without": None,
    }
    for label, privacy in rows.items():
        own = None if privacy is None else privacy | {"delta": 1e-2}
        found[label] = [
            lab.run(model=MLP, rounds=2, seed=seed, privacy=own).result for seed in (1, 2)
        ]
    return found


def test_the_parts_add_up_and_are_paired_by_seed(results):
    prices = {price.label: price for price in find_prices(results)}
    assert set(prices) == {"private", "other norm"}
    parts = prices["private"].parts("final", "generic/accuracy")
    by_hand = {
        label: np.array([run["final"]["generic/accuracy"] for run in results[label]])
        for label in ("plain", "clipped", "private")
    }
    np.testing.assert_allclose(parts["clipping"], by_hand["plain"] - by_hand["clipped"])
    np.testing.assert_allclose(parts["noise"], by_hand["clipped"] - by_hand["private"])
    np.testing.assert_allclose(parts["together"], by_hand["plain"] - by_hand["private"])
    assert prices["other norm"].parts("final", "generic/accuracy")["clipping"] == []  # no twin


def test_the_tables(results):
    sheet = price_sheet(results, "final")
    assert [text_of(row[0]) for row in sheet.rows][:3] == [
        "private: clipping", "private: noise", "private: together",
    ]  # fmt: skip
    assert list(sheet.columns[1:]) == [
        "generic", "many", "medium", "few", "personal", "owners", "others",
    ]  # fmt: skip
    cells = dict(zip(results, epsilon_cells(results), strict=True))
    assert cells["plain"].text == cells["clipped"].text == "∞"
    assert cells["without"].text == "-"
    assert cells["private"].value == pytest.approx(
        max(run["privacy"]["epsilon"] for run in results["private"])
    )
    assert not math.isinf(cells["private"].value)
    clipped = clipped_sheet(results)
    assert [row[0] for row in clipped.rows] == ["clipped", "private", "other norm"]
    lines = privacy_notes(results)
    assert "protects a client, with all its images, at delta 0.01, by RDP; Poisson" in lines[0]
    assert "searches" in lines[-1]
    assert price_sheet({"without": results["without"]}, "final") is None
    assert epsilon_cells({"without": results["without"]}) is None


def test_the_picture_has_the_points_of_both_twins(results):
    """Per panel the mean loss by row, the same without noise, and all seeds within the axis."""
    methods = [
        Method(label, tuple(RunRecord(Path(), run, (), {}, {}) for run in runs))
        for label, runs in results.items()
    ]
    (picture,) = privacy_price(methods)
    panels = {axes.get_title(): axes for axes in picture.figure.axes}
    assert len(panels) == 7
    by_hand = {
        label: np.array([run["last_k"]["generic/accuracy"] for run in results[label]])
        for label in ("plain", "clipped", "private", "other norm")
    }
    axes = panels["all classes"]
    lost = [by_hand["plain"] - by_hand[label] for label in ("private", "other norm")]
    (drawn,) = (line.get_ydata() for line in axes.lines if line.get_marker() == "o")
    assert sorted(drawn) == pytest.approx(sorted(float(one.mean()) for one in lost))
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    (clipping,) = lines["fedavg: clipping alone"]
    assert clipping == pytest.approx((by_hand["plain"] - by_hand["clipped"]).mean())
    low, high = axes.get_ylim()
    assert all(low <= value <= high for value in np.concatenate(lost))
    assert "private: generic" in picture.alt


def test_owners_are_counted_from_the_partition(lab):
    observer = lab.federation(partition={"num_clients": 8, "dirichlet_alpha": 0.2}).observer
    few = list(dict(observer.shots.items())["few"])
    counts = observer.data.client_counts
    found = tail_owners(observer)
    owns = [any(counts[k, c] for c in few) for k in range(8)]
    assert found["owners"].tolist() == owns
    assert found["others"].tolist() == [not one for one in owns]
    shares = [counts[k, few].sum() / counts[k].sum() for k in range(8)]
    assert found["top"].tolist() == [k == int(np.argmax(shares)) for k in range(8)]


def test_accuracies_of_owners_and_others_are_those_of_their_clients(lab):
    found = lab.run(model=MLP, rounds=1, partition={"num_clients": 8, "dirichlet_alpha": 0.2})
    row = found.rows[-1]
    owners, clients = row["personal/few_owners"], row["personal/clients"]
    mean = (
        owners * row["personal/accuracy_few_owners"]
        + (clients - owners) * row["personal/accuracy_others"]
    ) / clients
    assert mean == pytest.approx(row["personal/accuracy"])


def test_the_command_says_epsilon_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = {"name": "a", "rounds": 10, "clients_per_round": 10, "model": MLP}
    tree |= {"partition": {"num_clients": 100, "min_samples": 1}}
    tree |= {"privacy": {"norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-3}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    assert main(["privacy", "a.yaml"]) == 0
    told = capsys.readouterr().out
    assert "poisson cohorts of 10 of 100 clients; norm 0.5; noise multiplier 1;" in told
    assert not (tmp_path / "runs").exists()
    assert main(["privacy", "a.yaml", "privacy.delta=0.5"]) == 2
    assert "privacy.delta: 0.5 is not below 1 / 100" in capsys.readouterr().err
    assert main(["privacy", "a.yaml", "strategy=scaffold"]) == 2
    assert "needs control variates" in capsys.readouterr().err
    del tree["privacy"]
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(tree))
    assert main(["privacy", "b.yaml"]) == 2
    assert "the file has no such section" in capsys.readouterr().err


def test_a_search_says_that_it_spends_privacy(tmp_path, monkeypatch, capsys):
    """Two trials of the noisy row spend; those without noise have no epsilon to spend."""
    monkeypatch.chdir(tmp_path)
    rows = {
        "plain": {"privacy": {"noise_multiplier": 0.0, "delta": 0.01}},
        "noisy": {"privacy": {"norm": 1.0, "noise_multiplier": 1.0, "delta": 0.01}},
    }
    content = {
        "name": "spending",
        "rounds": 1,
        "data": {"dataset": "digits", "imbalance_factor": 5},
        "partition": {"num_clients": 4},
        "model": MLP,
        "engine": {"name": "serial"},
        "compare": {"search": {"local.lr": [0.1, 0.2]}, "rows": rows},
    }
    (tmp_path / "spending.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["sweep", "spending.yaml", "--jobs", "1"]) == 0
    line = "Every trial of a private row spends privacy that no row's epsilon holds: noisy 2."
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "runs/spending/sweep/sweep.md").read_text()
