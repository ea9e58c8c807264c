"""When FedLoGe pays: the figures of its page, from the published and our own curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from statistics import fmean

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
MIDDLES = (5, 10, 15, 20, 25, 30, 38)
HEADS = {"SSE-C": "sse_c/", "auxiliary": "auxiliary/", "realigned": ""}


def published() -> dict[tuple[str, str, str, int], Mapping[str, str]]:
    """Return the lines of the logs by setting, row, metric, and round."""
    lines = [line for line in LOGS.read_text().splitlines() if not line.startswith("#")]
    return {
        (line["setting"], line["row"], line["metric"], int(line["round"])): line
        for line in csv.DictReader(lines)
    }


def line_of(*cells: object) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def test_the_table_of_the_logs():
    """FedAvg / FedLoGe: generic over five rounds, rare classes and personal of that round."""
    logs, page = published(), PAGE.read_text()
    for setting, name in SETTINGS.items():
        for number in ROUNDS[setting]:

            def pair(fedavg: str, fedloge: str, column: str, at: tuple[str, int]) -> str:
                found = (
                    logs[at[0], row, metric, at[1]]
                    for row, metric in (("FedAvg", fedavg), ("FedLoGe", fedloge))
                )
                return " / ".join(f"{float(line[column]):.1f}" for line in found)

            at = (setting, number)
            cells = (
                pair("generic/accuracy", "generic/sse_c/accuracy", "mean", at),
                pair("generic/few", "generic/sse_c/few", "value", at),
                pair("personal/accuracy", "personal/accuracy_test_held", "value", at),
            )
            assert line_of(name, number, *cells) in page


def test_the_table_of_our_own_curves():
    """Means of five rounds, as those of the published curve."""
    logs, page = published(), PAGE.read_text()
    files = {method: RUNS / method / "3407/rounds.jsonl" for method in ("fedavg", "fedloge")}
    runs = {
        method: [json.loads(line) for line in file.read_text().splitlines()]
        for method, file in files.items()
    }

    def mean(method: str, metric: str, middle: int) -> str:
        near = [row[metric] for row in runs[method] if abs(row["round"] - middle) <= 2]
        assert len(near) == 5
        return f"{100 * fmean(near):.1f}"

    for middle in MIDDLES:
        of_logs = [
            logs.get(("b", row, metric, middle), {}).get("mean", "")
            for row, metric in (
                ("FedAvg", "generic/accuracy"),
                ("FedLoGe", "generic/sse_c/accuracy"),
            )
        ]
        cells = [
            *(f"{float(value):.1f}" if value else "" for value in of_logs),
            mean("fedavg", "generic/accuracy", middle),
            *(mean("fedloge", f"generic/{head}accuracy", middle) for head in HEADS.values()),
        ]
        assert line_of(middle, *cells) in page


def test_the_table_of_the_heads():
    """Of the last round."""
    page = PAGE.read_text()
    last = {
        method: json.loads((RUNS / method / "3407/rounds.jsonl").read_text().splitlines()[-1])
        for method in ("fedavg", "fedloge")
    }
    heads = [("FedAvg", "fedavg", ""), *(("FedLoGe, " + k, "fedloge", v) for k, v in HEADS.items())]
    for name, method, head in heads:
        found = [
            f"{100 * last[method][f'generic/{head}{group}']:.1f}"
            for group in ("accuracy", "many", "medium", "few")
        ]
        assert line_of(name, *found) in page
    personal = {
        "FedAvg": ("fedavg", "personal/accuracy"),
        "FedLoGe, local head": ("fedloge", "personal/local/accuracy"),
        "FedLoGe, auxiliary head": ("fedloge", "personal/auxiliary/accuracy"),
        "FedLoGe, realigned V1": ("fedloge", "personal/realigned_v1/accuracy"),
        "FedLoGe, realigned V2": ("fedloge", "personal/accuracy"),
    }
    for name, (method, metric) in personal.items():
        assert line_of(name, f"{100 * last[method][metric]:.1f}") in page
