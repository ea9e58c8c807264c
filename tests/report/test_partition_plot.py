"""Partitions drawn in the terminal and as PNG, and the cost of a round."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from fedlt.errors import FedltError
from fedlt.evaluation.headline import ScoredSet
from fedlt.report.partition_plot import (
    Cost,
    PartitionView,
    cost_text,
    draw_heat,
    draw_partition,
    estimate_cost,
    show_partition,
)

COUNTS = np.array([[30, 10, 0], [0, 0, 5], [0, 0, 0]])
VIEW = PartitionView(
    COUNTS, ("cat", "dog", "owl"), {"many": (0,), "medium": (), "few": (1, 2)}, "title"
)


def render(view: PartitionView) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(show_partition(view))
    return out.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_terminal_numbers():
    text = render(VIEW)
    assert ["0", "40", "2", "75.0", "30", "10", "·"] in rows(text)
    assert ["1", "5", "1", "100.0", "·", "·", "5"] in rows(text)
    assert ["2", "0", "0", "0.0", "·", "·", "·"] in rows(text)
    assert ["0", "cat", "30", "many", "1"] in rows(text)
    assert ["2", "owl", "5", "few", "1"] in rows(text)
    assert ["medium", "-", "-", "-"] in rows(text)
    assert ["few", "2", "15", "5", "to", "10"] in rows(text)
    assert "3 clients, 45 images" in text
    assert "classes per client 0 to 2, median 1" in text
    assert "clients without images: 1" in text


def test_classes_without_test_images_are_marked(tmp_path):
    """Test images 7, 2 and none: a column more, one line, and a cross above the class's column."""
    view = replace(VIEW, scored_on=ScoredSet((7, 2, 0)))
    text = render(view)
    assert ["1", "dog", "10", "few", "1", "2"] in rows(text)
    assert ["2", "owl", "5", "few", "1", "none"] in rows(text)
    assert "1 of 3 classes has no image (owl) and weighs nothing" in text
    assert "test set" not in render(VIEW)
    axes = Figure().subplots()
    draw_heat(axes, view)
    assert axes.lines[0].get_xydata().tolist() == [[2, -0.5]]
    assert axes.get_xlabel() == "x: no images in the test set"
    draw_partition(view, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_terminal_stays_small():
    counts = np.random.RandomState(0).randint(0, 90, size=(1000, 100))
    text = render(PartitionView(counts, [str(c) for c in range(100)]))
    assert len(text.splitlines()) < 60
    assert "and 960 more clients" in text
    assert "█" in text


def test_shades_grow_with_the_number():
    counts = np.zeros((1, 25), int)
    counts[0, :4] = (0, 1, 30, 1000)
    # ceil(4 log(1 + n) / log(1001)): 1, 2, 4
    line = render(PartitionView(counts, [str(c) for c in range(25)]))
    assert "░▒█" in line


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (200, 100)])
def test_png(tmp_path, shape):
    counts = np.random.RandomState(1).randint(0, 50, size=shape)
    names = [f"class {c}" for c in range(shape[1])]
    draw_partition(PartitionView(counts, names, {"many": (0,)}, "t"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_png_of_nothing_and_its_place(tmp_path):
    draw_partition(PartitionView(np.zeros((2, 2), int), ("a", "b")), tmp_path / "a.png")
    with pytest.raises(FedltError, match="cannot be written: No such file"):
        draw_partition(VIEW, tmp_path / "none" / "a.png")


def test_cost():
    # 45 images, 3 clients, 2 a round: 30 images a pass in the mean, 2 passes
    cost = estimate_cost(
        COUNTS, clients_per_round=2, passes=np.full(len(COUNTS), 2.0), model_bytes=2**19
    )
    assert cost == Cost(images=60.0, bytes_down=2**20, bytes_up=2**20)
    assert cost_text(cost, 10) == (
        "per round 60 images; in 10 rounds 600; per round 1.00 MiB down, 1.00 MiB up"
    )
    everyone = estimate_cost(COUNTS, clients_per_round=None, passes=np.ones(len(COUNTS)))
    assert everyone == Cost(images=45.0, bytes_down=None, bytes_up=None)
    assert cost_text(everyone, 2) == "per round 45 images; in 2 rounds 90"
