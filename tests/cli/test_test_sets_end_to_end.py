"""A user's data with an unbalanced, incomplete test set, through every command that tells of it.

Expected numbers come from scikit-learn, on the logits and labels that the runs saved.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import warnings
from pathlib import Path

import numpy as np
import pytest
from report_pages import parse, table, texts
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from fedlt.cli import main

COUNTS = (40, 12, 6, 3, 0)  # test images by class
NOTE = (
    "the test set is not balanced: 1 of 5 classes has no image (4) and weighs nothing, the other "
    "classes have 3 to 40; balanced is the mean recall over the classes with images and comes "
    "before accuracy"
)
DATA = '''
"""Five classes of 8 x 8 images; how many of each the test and the validation set have is given."""

from dataclasses import replace

import numpy as np

from fedlt.data.dataset import dataset_from_arrays

def load(test, validation=(0, 2, 9, 30, 4)):
    rng = np.random.default_rng(0)
    means = rng.normal(0, 1, (5, 8, 8))

    def draw(counts):
        labels = np.repeat(np.arange(5), counts)
        images = 128 + 20 * means[labels] + 50 * rng.normal(size=(len(labels), 8, 8))
        return images.clip(0, 255).astype(np.uint8), labels

    data = dataset_from_arrays("scans", *draw([50] * 5), *draw(list(test)))
    images, labels = draw(list(validation))
    return replace(data, validation_images=images[:, None], validation_labels=labels)
'''
FILE = """
name: scans
seeds: [1, 2]
data: {dataset: "DATA:load", imbalance_factor: 5, options: {test: [40, 12, 6, 3, 0]}}
partition: {num_clients: 4, dirichlet_alpha: 0.5, min_samples: 2}
model: {name: mlp, width: 8}
local: {batch_size: 8, lr: 0.05}
rounds: 2
engine: {name: serial}
"""
ROWS = """
compare:
  rows:
    FedAvg: {}
    Ditto: {strategy: ditto, search: {local.lr: [0.001, 0.05]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a comparison: its runs, tables and page."""
    place = tmp_path_factory.mktemp("scans")
    (place / "scans.py").write_text(DATA)
    text = FILE.replace("DATA", str(place / "scans.py")) + f"output: {place / 'runs'}\n"
    (place / "alone.yaml").write_text(text)
    (place / "scans.yaml").write_text(text + ROWS)
    assert main(["compare", str(place / "scans.yaml"), "--jobs", "1"]) == 0
    return place


def result(folder, row, seed, *, below="runs/scans"):
    return json.loads((folder / below / row / str(seed) / "result.json").read_text())


def saved(folder, row, seed):
    """Return labels and predictions of a run's last round, from its saved logits."""
    run = folder / "runs/scans" / row / str(seed)
    with np.load(run / "evaluations/round_2.npz") as file:
        return file["labels"], file["generic.logits"][0].astype(np.float64).argmax(axis=1)


def oracle(labels, predicted):
    """Return balanced accuracy and accuracy by scikit-learn; it warns of a class never tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return balanced_accuracy_score(labels, predicted), accuracy_score(labels, predicted)


def cells(text, label):
    """Return the cells of a row of a Markdown table."""
    line = next(one for one in text.splitlines() if one.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def means(folder, row):
    """Return the mean over seeds of scikit-learn's two numbers, in percent."""
    both = [oracle(*saved(folder, row, seed)) for seed in (1, 2)]
    return [100 * statistics.fmean(one) for one in zip(*both, strict=True)]


@pytest.mark.parametrize("row", ["fedavg", "ditto"])
def test_results_say_what_they_were_scored_on(folder, row):
    for seed in (1, 2):
        found = result(folder, row, seed)
        assert found["scored_on"] == {
            "balanced": False,
            "without": [4],
            "counts": list(COUNTS),
        }
        labels, predicted = saved(folder, row, seed)
        assert np.bincount(labels, minlength=5).tolist() == list(COUNTS)
        balanced, accuracy = oracle(labels, predicted)
        assert found["final"]["generic/balanced"] == pytest.approx(balanced)
        assert found["final"]["generic/accuracy"] == pytest.approx(accuracy)
        assert found["final"]["generic/balanced"] != found["final"]["generic/accuracy"]
        for name in ("many", "medium", "few"):
            classes = [c for c in found["shots"][name] if COUNTS[c]]
            recall = recall_score(labels, predicted, labels=classes, average="macro")
            assert found["final"][f"generic/{name}"] == pytest.approx(recall)
        lines = (folder / "runs/scans" / row / str(seed) / "rounds.jsonl").read_text().splitlines()
        assert "generic/balanced" in json.loads(lines[-1])  # what trackers are told


def test_the_table_begins_with_the_mean_recall(folder):
    text = (folder / "runs/scans/last_k.md").read_text()
    assert cells(text, "method")[1:6] == ["balanced", "accuracy", "many", "medium", "few"]
    for label in ("FedAvg", "Ditto"):
        shown = [float(cell.partition(" ")[0]) for cell in cells(text, label)[1:3]]
        assert shown == pytest.approx(means(folder, label.lower()), abs=0.0501)
    assert f"* {NOTE}\n" in text
    assert re.search(r"\* personal view: [\d.]+ % of a client's images, in the mean, are", text)
    tex = (folder / "runs/scans/last_k.tex").read_text()
    assert "method & balanced & accuracy & many" in tex
    assert NOTE in tex


def test_the_files_have_both_numbers_unrounded(folder):
    with (folder / "runs/scans/last_k.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for one in rows:
        wanted = oracle(*saved(folder, one["method"].lower(), one["seed"]))
        assert float(one["generic/balanced"]) == pytest.approx(wanted[0])
        assert float(one["generic/accuracy"]) == pytest.approx(wanted[1])
        assert 0 < float(one["personal/mass_lost"]) < 1


def test_the_verdict_tests_the_mean_recall(folder):
    with (folder / "runs/scans/last_k_verdicts.csv").open(newline="") as file:
        rows = {one["view"]: one for one in csv.DictReader(file)}
    ours, theirs = means(folder, "ditto")[0], means(folder, "fedavg")[0]
    assert rows["generic"]["metric"] == "generic/balanced"
    assert 100 * float(rows["generic"]["difference"]) == pytest.approx(ours - theirs, abs=1e-9)
    assert rows["personal"]["metric"] == "personal/accuracy"
    assert "* generic balanced: Ditto undecided" in (folder / "runs/scans/last_k.md").read_text()


def test_the_report_says_it_and_marks_the_class(folder):
    page = parse(folder / "runs/scans/report.html")
    headings, rows = table(page, "Both views, primary heads")
    assert headings[1:3] == ["generic balanced", "generic accuracy"]
    for row in rows:
        assert [100 * value for value in row[1:3]] == pytest.approx(means(folder, row[0].lower()))
    everything = " ".join(texts(page, "body"))
    assert f"{NOTE[0].upper()}{NOTE[1:]}." in everything
    assert "of a class's images, in the mean over classes" in everything
    _, classes = table(page, "Generic model")
    assert classes[-1][0] == "class 4, no test images"
    assert classes[-1][2:] == ["-", "-"]
    assert all(isinstance(value, float) for row in classes[:-1] for value in row[1:])
    _, groups = table(page, "Accuracy by class group")
    assert 100 * groups[0][1] == pytest.approx(means(folder, "fedavg")[0])
    _, curve = table(page, "Generic model, mean recall over classes")
    last = next(row for row in curve if row[:2] == ["FedAvg", "2"])
    assert 100 * last[2] == pytest.approx(means(folder, "fedavg")[0])
    assert "Without test images, hence without a point: 1 class." in everything
    alts = [image.get("alt") for image in page.iter("img")]
    assert not [alt for alt in alts if "nan" in alt]


def test_rescore_keeps_the_headline(folder, capsys):
    assert main(["rescore", str(folder / "runs/scans"), "--output", str(folder / "again")]) == 0
    said = capsys.readouterr().out
    assert NOTE in said
    text = (folder / "again/last_k.md").read_text()
    before = (folder / "runs/scans/last_k.md").read_text()
    for label in ("FedAvg", "Ditto"):
        assert cells(text, label)[:9] == cells(before, label)[:9]
    priors = (folder / "again/last_k_generic_priors.md").read_text()
    uniform = cells(priors, "method").index("U")
    assert cells(priors, "FedAvg")[uniform] == cells(text, "FedAvg")[1]


def test_rescore_by_given_groups(folder, capsys):
    """Class 4 alone is few: without test images the group has no number."""
    arguments = ["--shots", "0/1-3/4", "--output", str(folder / "given")]
    assert main(["rescore", str(folder / "runs/scans"), *arguments]) == 0
    capsys.readouterr()
    shown = cells((folder / "given/last_k.md").read_text(), "FedAvg")
    expected = [
        statistics.fmean(
            recall_score(*saved(folder, "fedavg", seed), labels=classes, average="macro")
            for seed in (1, 2)
        )
        for classes in ([0], [1, 2, 3])
    ]
    found = [float(cell.partition(" ")[0]) for cell in shown[3:5]]
    assert found == pytest.approx([100 * one for one in expected], abs=0.0501)
    assert shown[5] == "-"


def test_a_sweep_scores_the_mean_recall_over_the_classes_held_out(folder, capsys):
    """The validation set has 0, 2, 9, 30 and 4 images: another class lacks images there."""
    arguments = ["--rows", "Ditto", "--jobs", "1"]
    assert main(["sweep", str(folder / "scans.yaml"), *arguments]) == 0
    capsys.readouterr()
    with (folder / "runs/scans/sweep/sweep.csv").open(newline="") as file:
        scores = [float(one["score"]) for one in csv.DictReader(file)]
    found = []
    for path in sorted((folder / "runs/scans/sweep").rglob("result.json")):
        one = json.loads(path.read_text())
        assert one["scored_on"]["counts"] == [0, 2, 9, 30, 4]
        with np.load(path.parent / "evaluations/round_2.npz") as file:
            confusion = file["generic.confusion"][0]
        recalls = [confusion[c, c] / confusion[c].sum() for c in (1, 2, 3, 4)]
        found.append((np.mean(recalls) + one["final"]["personal/accuracy"]) / 2)
    assert sorted(scores) == pytest.approx(sorted(found))


def test_run_says_it_before_and_after(folder, capsys):
    arguments = [str(folder / "alone.yaml"), "seeds=null", "seed=1", "name=alone"]
    assert main(["run", *arguments]) == 0
    out, err = capsys.readouterr()
    assert " ".join(out.split()).count(NOTE) == 1  # under the table, wrapped
    assert err.count(NOTE) == 1
    assert "generic balanced" in err  # the progress
    assert re.search(r"generic +balanced +accuracy +many +medium +few", out)


def test_realign_shows_the_headline(folder, capsys):
    run = folder / "runs/scans/fedavg/1"
    assert main(["realign", str(run), "--method", "tau_norm", "--tau", "0"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"generic +balanced +accuracy +many +medium +few", out)
    assert NOTE in " ".join(out.split())
    balanced, accuracy = oracle(*saved(folder, "fedavg", 1))
    shown = [line.split()[1:3] for line in out.splitlines() if line.startswith("before")]
    assert shown[0] == [f"{100 * balanced:.1f}", f"{100 * accuracy:.1f}"]


def test_inspect_marks_the_class(folder, capsys):
    assert (
        main(["inspect", str(folder / "alone.yaml"), "--trust", "--png", str(folder / "p.png")])
        == 0
    )
    out = capsys.readouterr().out
    assert NOTE in " ".join(out.split())
    rows = [line.split() for line in out.splitlines()]
    assert next(row for row in rows if row[:2] == ["4", "4"])[-1] == "none"
    assert next(row for row in rows if row[:2] == ["1", "1"])[-1] == "12"
    assert Path(folder / "p.png").stat().st_size > 1000


def test_runs_on_other_test_images_do_not_stand_side_by_side(folder, capsys):
    changed = "data.options.test=[40, 12, 6, 3, 5]"
    arguments = [str(folder / "alone.yaml"), "seeds=null", "seed=1", "name=other", changed]
    assert main(["run", *arguments]) == 0
    capsys.readouterr()
    runs = [str(folder / "runs/scans/fedavg/1"), str(folder / "runs/other/1")]
    assert main(["rescore", *runs]) == 2
    assert "not comparable" in capsys.readouterr().err
