"""Data that are long-tailed by nature are treated as drawn tails are: their counts decide.

A drawn tail and a data set whose pool is exactly the drawn images are the same federation, so
every number of the two must be equal: the drawn run is the independent source.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.utils import strip_ansi

from fedlt.cli import main
from fedlt.data import load_dataset
from fedlt.data.dataset import dataset_from_arrays
from fedlt.data.longtail import long_tail
from fedlt.errors import FedltError
from fedlt.federation.faults import aimed_rates
from fedlt.realigning.changes import Crt
from fedlt.realigning.session import Plan, realign
from fedlt.report.finished import read_runs
from fedlt.report.summary import introduction
from fedlt.runs.rescoring import Cut, rescore

SIZES = [400, 260, 150, 90, 60, 45, 30, 22, 16, 12, 9, 6]
BY_COUNT = {"many": [0, 1, 2], "medium": [3, 4, 5, 6, 7], "few": [8, 9, 10, 11]}  # > 100, < 20
NATURAL = f"{__file__}:twelve_classes"
DRAWN = {"dataset": "digits", "imbalance_factor": 20.0, "options": {}}
SAME = {"dataset": f"{__file__}:digits_as_drawn", "imbalance_factor": 1.0, "options": {}}


def noisy(sizes, image_size=6):
    """Return images and labels: one pattern a class, and noise."""
    rng = np.random.default_rng(4)
    patterns = rng.integers(40, 216, (len(SIZES), image_size, image_size))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = patterns[labels] + rng.normal(0, 40, (len(labels), image_size, image_size))
    return np.clip(images, 0, 255).astype(np.uint8), labels


def twelve_classes(sizes=tuple(SIZES), validation=None):
    """A user's data set: a pool that is long-tailed already, and a balanced test set."""
    made = dataset_from_arrays(
        "natural", *noisy(sizes), *noisy([10] * len(sizes)), long_tailed=True
    )
    if validation is None:
        return made
    images, labels = noisy(validation)
    return replace(made, validation_images=images[:, None], validation_labels=labels)


def not_marked():
    """The same pool, of a user who did not say so."""
    return replace(twelve_classes(), long_tailed=False)


def digits_as_drawn():
    """The digits, with the images of a drawn tail as the whole pool."""
    full = load_dataset("digits")
    chosen = long_tail(
        full.train_labels,
        10,
        imbalance_factor=20,
        profile="exponential",
        class_order="natural",
        seed=1,
    )
    images, labels = full.train_images[chosen], full.train_labels[chosen]
    return replace(full, name="natural", train_images=images, train_labels=labels, long_tailed=True)


def natural(**changes):
    return {"data": {"dataset": NATURAL, "imbalance_factor": 1.0, "options": {}}, **changes}


def lists(outcome):
    return {name: outcome[name] for name in ("many", "medium", "few")}


def timeless(result):
    """The last round's numbers, without seconds, and the groups."""
    return {n: v for n, v in result["final"].items() if n != "seconds"} | lists(result["shots"])


def test_groups_come_from_the_counts(lab):
    result = lab.run(**natural(), rounds=1).result
    assert result["shots"] == {"scheme": "count", **BY_COUNT}
    assert result["final"]["generic/few"] is not None


def test_an_explicit_setting_is_obeyed(lab):
    """Ranks of 12 classes: round(0.3 x 12) = 4 many and 4 few."""
    ranks = {"many": [0, 1, 2, 3], "medium": [4, 5, 6, 7], "few": [8, 9, 10, 11]}
    own = {"many": [0, 11], "medium": [], "few": [3]}
    for evaluate, expected in (
        ({"shots": "rank"}, ranks),
        ({"shots": "count"}, BY_COUNT),
        ({"shots": "given", "shot_classes": own}, own),
    ):
        groups = lab.federation(**natural(evaluate=evaluate)).observer.shots
        assert groups.scheme == evaluate["shots"]
        assert lists(groups.to_json()) == expected


def test_lists_are_checked_before_anything_is_written(lab):
    bad = {"shots": "given", "shot_classes": {"few": [12]}}
    with pytest.raises(FedltError, match=r"shot_classes: there is no class 12, only 0 to 11"):
        lab.run(**natural(evaluate=bad))
    assert not lab.output.exists()


def test_given_lists_are_kept_by_rescore(lab):
    evaluate = {"shots": "given", "shot_classes": {"few": [3, 7]}}
    run = lab.run(**natural(evaluate=evaluate), rounds=1)
    for shots in (None, "given"):
        assert rescore(run.directory, Cut(shots=shots))["shots"] == run.result["shots"]
    assert lists(rescore(run.directory, Cut(shots="auto"))["shots"]) == BY_COUNT
    plain = lab.run(**natural(), rounds=1)
    with pytest.raises(FedltError, match="shots given: the run has no class lists"):
        rescore(plain.directory, Cut(shots="given"))


def test_a_run_says_which_groups_it_has(lab):
    assert lab.federation(**natural()).observer.notes()[0] == (
        "shot groups by count: many 3, medium 5, few 4 classes"
    )
    even = {"dataset": NATURAL, "imbalance_factor": 1.0, "options": {"sizes": [14, 12, 10]}}
    federation = lab.federation(data=even)
    assert federation.observer.shots.scheme == "none"
    assert federation.observer.notes()[0].startswith(
        "no shot groups: the largest class has 1.4 times"
    )
    with pytest.raises(FedltError, match=r"lost.aim: few needs few-classes.*1.4 times the images"):
        lab.run(data=even, faults={"lost": {"rate": 0.2, "aim": "few"}})


def test_everything_is_equal_to_the_drawn_tails(lab):
    """Faults aimed at tail owners, diagnostics, cuts, realigned heads, the report's sentence."""
    changes = {
        "model": {"name": "mlp", "width": 8},
        "partition": {"num_clients": 6},
        "faults": {"lost": {"rate": 0.3, "aim": "few"}},
        "diagnostics": {"every": 1},
        "evaluate": {"local_test": "sampled"},
    }
    drawn, same = (lab.run(data=data, **changes) for data in (DRAWN, SAME))
    assert drawn.result["shots"]["scheme"] == "count"  # 124 > 100; 16, 12, 8, 6 < 20
    assert same.result["partition_hash"] == drawn.result["partition_hash"]
    assert same.rows == drawn.rows
    assert any(name.startswith("diagnostics/") for name in same.rows[-1])
    assert same.result["shots"] == drawn.result["shots"]
    assert same.result["faults"] == drawn.result["faults"]
    for cut in (Cut(), Cut(shots="auto"), Cut(shots="cumulative")):
        first, second = (timeless(rescore(run.directory, cut)) for run in (drawn, same))
        assert second == first
    plain = timeless(rescore(drawn.directory, Cut()))
    own = timeless(drawn.result)
    assert {name: value for name, value in plain.items() if name in own} == own
    first, second = (realign(run.directory, [Plan(Crt(), "pooled")])[0] for run in (drawn, same))
    assert second["after"] == first["after"]
    said = [introduction(read_runs([run.directory.path])) for run in (drawn, same)]
    assert "the largest class 20.7 times the smallest" in said[0]  # 124 and 6 images
    assert said[1].partition("training images")[2] == said[0].partition("training images")[2]


def test_faults_aim_at_owners_by_their_share_of_few_class_images(lab):
    """p_k = min(1, c s_k) with a mean of the rate; s_k counted here, from the labels."""
    federation = lab.federation(**natural(faults={"lost": {"rate": 0.2, "aim": "few"}}))
    data = federation.observer.data
    shares = [
        np.isin(data.train_labels[own], BY_COUNT["few"]).mean() for own in data.partition.clients
    ]
    from fedlt.federation.faults import Faults

    found = Faults.of(federation.observer).lost
    assert found.tolist() == pytest.approx(aimed_rates(shares, 0.2).tolist())
    assert found.mean() == pytest.approx(0.2)


def test_tune_holds_out_a_tenth_of_each_class_and_scores_the_recall_over_these(lab):
    """Sizes 40, 12, 7, 5, 4: 4, 1, 1, 1 and none are held out; class 4 is trained, not scored."""
    data = {
        "dataset": NATURAL,
        "imbalance_factor": 1.0,
        "split": "tune",
        "options": {"sizes": [40, 12, 7, 5, 4]},
    }
    run = lab.run(data=data, partition={"num_clients": 3}, rounds=2)
    federation = lab.federation(data=data, partition={"num_clients": 3})
    assert np.bincount(federation.observer.data.eval_labels, minlength=5).tolist() == [
        4,
        1,
        1,
        1,
        0,
    ]
    assert federation.observer.data.class_counts.tolist() == [36, 11, 6, 4, 4]
    confusion = np.load(run.directory.path / "evaluations/round_2.npz")["generic.confusion"][0]
    assert confusion.sum(axis=1).tolist() == [4, 1, 1, 1, 0]
    recall = confusion.diagonal()[:4] / [4, 1, 1, 1]
    assert run.rows[-1]["generic/balanced"] == pytest.approx(recall.mean())
    assert run.result["scored_on"]["without"] == [4]
    assert any("1 of 5 classes has no image (4)" in line for line in federation.observer.notes())


def test_a_validation_part_of_its_own_is_used(lab):
    options = {"sizes": [40, 12, 7], "validation": [3, 2, 1]}
    data = {"dataset": NATURAL, "imbalance_factor": 1.0, "split": "tune", "options": options}
    made = lab.federation(data=data, partition={"num_clients": 3}).observer.data
    assert np.bincount(made.eval_labels).tolist() == [3, 2, 1]
    assert made.class_counts.tolist() == [40, 12, 7]


def test_a_run_says_that_a_pool_is_cut_down_to_its_smallest_class(lab):
    """A pool of 400 to 6 images that does not say that it is a long tail gives 12 x 6 images."""
    data = {"dataset": f"{__file__}:not_marked", "imbalance_factor": 1.0, "options": {}}
    federation = lab.federation(data=data)
    assert federation.observer.shots.scheme == "none"
    (line,) = [line for line in federation.observer.notes() if "pool" in line]
    assert line.startswith("the pool of natural has 6 to 400 images a class")
    assert "72 of 1,100 images are used" in line
    assert not any("the pool" in line for line in lab.federation(**natural()).observer.notes())
    assert not any("the pool" in line for line in lab.federation(data=DRAWN).observer.notes())


def test_inspect_counts_the_groups_of_a_natural_tail(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(
        "name: base\ndata: {dataset: digits, imbalance_factor: 20}\npartition: {num_clients: 4}\n"
        "model: {name: mlp}\nrounds: 1\n"
    )
    spec = [f"data.dataset={NATURAL}", "data.imbalance_factor=1"]
    assert main(["inspect", "base.yaml", *spec]) == 0
    shown = strip_ansi(capsys.readouterr().out)
    assert "shot groups by count: many 3, medium 5, few 4 classes" in shown
    assert main(["inspect", "base.yaml", f"data.dataset={NATURAL}"]) == 2
    line = capsys.readouterr().err
    assert "data.imbalance_factor: 20 leaves a class without images" in line
    assert "with data.imbalance_factor 1 the pool of 'natural' is used as it stands" in line


def test_a_tail_is_drawn_from_a_pool_with_a_tail_where_the_file_asks_for_one(lab):
    """The smallest class has 6 images: 6, 5.63, 5.29, ... 3, cut to whole images."""
    changes = {**natural()["data"], "imbalance_factor": 2.0}
    counts = lab.federation(data=changes).observer.data.class_counts
    assert counts.tolist() == [int(6 * 0.5 ** (rank / 11)) for rank in range(12)]
