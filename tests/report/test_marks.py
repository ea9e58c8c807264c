"""Pictures say what tables say: averaged models, references, and lines to compare with."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from sealed import edit

from fedlt.report.figures.classes import class_accuracy
from fedlt.report.figures.curves import learning_curves
from fedlt.report.figures.gains import gain_by_size
from fedlt.report.figures.groups import group_bars
from fedlt.report.figures.per_client import client_distribution
from fedlt.report.figures.price import price
from fedlt.report.finished import read_runs
from fedlt.report.tones import GREY, PAGE


@pytest.fixture(scope="module")
def methods(comparison, tmp_path_factory):
    """Fed ROD without a generic model of its own, FedAvg to test against, a reference point."""
    folder = tmp_path_factory.mktemp("marks") / "c"
    shutil.copytree(comparison, folder)
    shutil.copytree(folder / "fedavg", folder / "pooled")
    for seed in "12":
        edit(folder / f"fed-rod/{seed}/result.json", {"generic_model": "average"})
        edit(folder / f"pooled/{seed}/result.json", {"reference": "pooled data"})
    found = {method.label: method for method in read_runs([folder]).methods}
    found["FedAvg"] = replace(found["FedAvg"], is_baseline=True)
    assert sorted(found) == ["Fed ROD", "FedAvg", "pooled"]
    return [found["FedAvg"], found["Fed ROD"], found["pooled"]]


def mean(comparison, name, metric):
    files = [comparison / name / seed / "result.json" for seed in "12"]
    return statistics.fmean(json.loads(file.read_text())["last_k"][metric] for file in files)


def faces(axes):
    """Colours of the bars by row, the first method above."""
    rows = {}
    for bar in axes.patches:
        rows.setdefault(round(bar.get_y() + bar.get_height() / 2), set()).add(
            to_hex(bar.get_facecolor())
        )
    return [rows[row] for row in sorted(rows)]


def words(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def lines_at(axes, *, across=False):
    """Places of the lines through the whole panel, which have two points at the same place."""
    pairs = [line.get_ydata() if across else line.get_xdata() for line in axes.lines]
    return [pair[0] for pair in pairs if len(pair) == 2 and pair[0] == pair[1]]


def test_bars_of_an_averaged_model_are_hollow_in_the_generic_view_only(methods):
    (picture,) = group_bars(methods)
    generic, personal = picture.figure.axes
    assert faces(generic)[1] == {PAGE.light}
    assert all(PAGE.light not in own for own in (*faces(generic)[::2], *faces(personal)))
    assert any(word.startswith("hollow (~)") for word in words(picture.figure))
    assert "the generic model of Fed ROD is averaged from personal parts" in picture.alt
    cells = [str(cell.text) for cell in picture.sheets[0].rows[1][1:]]
    assert [cell.startswith("~") for cell in cells] == [n < 4 for n in range(8)]


def test_lines_of_the_groups_stand_at_the_numbers_of_the_table(methods, comparison):
    (picture,) = group_bars(methods)
    generic, personal = picture.figure.axes
    guess = mean(comparison, "fedavg", "personal/majority_guess")
    own = mean(comparison, "fedavg", "personal/accuracy")
    assert lines_at(generic) == pytest.approx([mean(comparison, "fedavg", "generic/accuracy")])
    assert sorted(lines_at(personal)) == pytest.approx(sorted([guess, own]))
    assert f"always guessing a client's largest class, {100 * guess:.1f} %" in picture.alt
    assert f"FedAvg, all classes, personal {100 * own:.1f} %" in picture.alt
    names = [label.get_text() for label in generic.get_yticklabels()]
    assert names == ["FedAvg", "Fed ROD", "pooled (not federated)"]
    assert "Not federated, for reference: pooled (pooled data)." in picture.alt


def test_many_methods_have_hollow_points(methods):
    (picture,) = group_bars([methods[1]] + [methods[0]] * 12)
    generic, personal = picture.figure.axes
    points = {
        axes: [line for line in axes.lines if line.get_marker() != "None"]
        for axes in (generic, personal)
    }
    hollow = [line for line in points[generic] if to_hex(line.get_markerfacecolor()) == PAGE.light]
    assert [round(line.get_ydata()[0]) for line in hollow] == [0] * 4  # all, many, medium, few
    assert PAGE.light not in {to_hex(line.get_markerfacecolor()) for line in points[personal]}


@pytest.mark.parametrize("draw", [learning_curves, class_accuracy])
def test_curves_of_an_averaged_model_are_hollow_and_a_reference_is_grey(methods, draw):
    (picture,) = draw(methods)
    panels = picture.figure.axes[-2:]
    for axes, inside in zip(panels, (PAGE.light, "#d55e00"), strict=True):
        own = {line.get_label(): line for line in axes.lines}
        assert to_hex(own["Fed ROD"].get_markerfacecolor()) == inside
        assert to_hex(own["pooled (not federated)"].get_color()) == GREY.light
    assert any(word.startswith("hollow (~)") for word in words(picture.figure))
    assert "Fed ROD is averaged from personal parts" in picture.alt


def test_the_trivial_model_is_a_line_among_the_personal_curves_only(methods, comparison):
    (picture,) = learning_curves(methods)
    generic, personal = picture.figure.axes
    guess = mean(comparison, "fedavg", "personal/majority_guess")
    assert lines_at(personal, across=True) == pytest.approx([guess])
    assert lines_at(generic, across=True) == []


def test_the_trivial_model_is_a_row_of_the_clients(methods, comparison):
    """Its mean over clients and seeds is the metric of the last round in result.json."""
    (picture,) = client_distribution(methods)
    *_, last = picture.sheets[0].rows
    files = [comparison / "fedavg" / seed / "result.json" for seed in "12"]
    finals = [json.loads(f.read_text())["final"]["personal/majority_guess"] for f in files]
    assert last[0] == "guess: largest class"
    assert last[8].value == pytest.approx(statistics.fmean(finals), abs=1e-12)
    own = np.concatenate([run.clients.accuracy for run in methods[0].runs])
    assert np.median(own) in lines_at(picture.figure.axes[0])
    assert "median of FedAvg: the others are tested against it" in words(picture.figure)


def test_gains_over_an_averaged_model_are_marked(methods):
    (picture,) = gain_by_size(methods)
    assert [axes.get_title() for axes in picture.figure.axes] == ["~ Fed ROD"]
    assert all(row[3].text.startswith("~") for row in picture.sheets[0].rows)
    assert "averaged from personal parts; the method has no such model" in words(picture.figure)


def test_a_reference_point_sends_nothing(methods):
    (picture,) = price(methods)
    by_name = {row[0]: [cell.text for cell in row[2:5]] for row in picture.sheets[0].rows}
    assert by_name["pooled"] == ["-", "-", "-"]
    assert "-" not in by_name["FedAvg"][:2]
