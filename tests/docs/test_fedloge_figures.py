"""When FedLoGe pays: the figures of its page, from the published and our own curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from statistics import fmean

import pytest
from doc_blocks import ROOT

PAGE = ROOT / "docs/methods/longtail/fedloge.md"
LOGS = ROOT / "experiments/paper/fedloge_trajectories.csv"
RUNS = ROOT / "experiments/results/paper-fedloge/resnet8/b"
SETTINGS = {
    "b": "b: CIFAR-10, imbalance 100",
    "a": "a: CIFAR-10, imbalance 50",
    "f": "f: CIFAR-100, imbalance 100",
}
ROUNDS = {"b": (10, 50, 100, 200, 400), "a": (10, 50, 100, 200, 400), "f": (10, 50, 100, 150)}
CELLS = (  # metric of FedAvg, metric of FedLoGe, column of the logs
    ("generic/accuracy", "generic/sse_c/accuracy", "mean"),
    ("generic/few", "generic/sse_c/few", "value"),
    ("personal/accuracy", "personal/accuracy_test_held", "value"),
)
MIDDLES = (5, 10, 15, 20, 25, 30, 38)
PERSONAL = {
    "local head": "local/",
    "auxiliary head": "auxiliary/",
    "realigned V1": "realigned_v1/",
    "realigned V2": "",
}
HEADS = {"SSE-C": "sse_c/", "auxiliary": "auxiliary/", "realigned": ""}


def published() -> dict[tuple[str, str, str, int], Mapping[str, str]]:
    """Return the lines of the logs by setting, row, metric, and round."""
    lines = [line for line in LOGS.read_text().splitlines() if not line.startswith("#")]
    return {
        (line["setting"], line["row"], line["metric"], int(line["round"])): line
        for line in csv.DictReader(lines)
    }


def rounds_of(method: str) -> list[dict[str, float]]:
    """Return the rounds of our run of a method."""
    text = (RUNS / method / "3407/rounds.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def line_of(*cells: object) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


@pytest.mark.parametrize(
    ("setting", "number"), [(setting, number) for setting in ROUNDS for number in ROUNDS[setting]]
)
def test_the_table_of_the_logs(setting, number):
    """FedAvg / FedLoGe: generic over five rounds, rare classes and personal of that round."""
    logs, cells = published(), []
    for fedavg, fedloge, column in CELLS:
        lines = logs[setting, "FedAvg", fedavg, number], logs[setting, "FedLoGe", fedloge, number]
        cells.append(" / ".join(f"{float(line[column]):.1f}" for line in lines))
    assert line_of(SETTINGS[setting], number, *cells) in PAGE.read_text()


@pytest.mark.parametrize("middle", MIDDLES)
def test_the_table_of_our_own_curves(middle):
    """Means of five rounds, as those of the published curve."""
    logs, cells = published(), []
    for row, metric in (("FedAvg", "generic/accuracy"), ("FedLoGe", "generic/sse_c/accuracy")):
        value = logs.get(("b", row, metric, middle), {}).get("mean")
        cells.append(f"{float(value):.1f}" if value else "")
    own = [("fedavg", ""), *(("fedloge", head) for head in HEADS.values())]
    for method, head in own:
        near = [
            row[f"generic/{head}accuracy"]
            for row in rounds_of(method)
            if abs(row["round"] - middle) <= 2
        ]
        assert len(near) == 5
        cells.append(f"{100 * fmean(near):.1f}")
    assert line_of(middle, *cells) in PAGE.read_text()


def test_the_tables_of_the_heads():
    """Of the last round."""
    page, last = PAGE.read_text(), {name: rounds_of(name)[-1] for name in ("fedavg", "fedloge")}
    rows = {"FedAvg": ("fedavg", ""), **{f"FedLoGe, {k}": ("fedloge", v) for k, v in HEADS.items()}}
    groups = ("accuracy", "many", "medium", "few")
    for name, (method, head) in rows.items():
        found = [f"{100 * last[method][f'generic/{head}{group}']:.1f}" for group in groups]
        assert line_of(name, *found) in page
    assert line_of("FedAvg", f"{100 * last['fedavg']['personal/accuracy']:.1f}") in page
    for name, head in PERSONAL.items():
        value = last["fedloge"][f"personal/{head}accuracy"]
        assert line_of(f"FedLoGe, {name}", f"{100 * value:.1f}") in page
