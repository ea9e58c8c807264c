"""The bytes of the messages between server and node: the table of docs/deploy.md."""

from __future__ import annotations

import re

import pytest
from doc_blocks import ROOT
from flwr.app import Context, RecordDict
from wire_grid import WireGrid

from fedlt.apps import make_apps
from fedlt.config import load_config

METHODS = {"FedAvg": "fedavg", "FedLoGe": "fedloge", "FedROD": "fedrod", "Ditto": "ditto"}
MESSAGES = {  # row of the table -> the kind of message, and whether it goes to the node
    "a task, to the node": ("train", True),
    "its answer": ("train", False),
    "models to score, to the node": ("evaluate", True),
    "hits, back": ("evaluate", False),
    "who the node is": ("query", False),
}


def table():
    """Return the numbers of the page: (row, method) -> bytes."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    lines = page.partition("## What leaves a node")[2].partition("\n## ")[0].splitlines()
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines if line.startswith("|")]
    head, found = rows[0][1:], {}
    for name, *cells in rows[2:]:
        found |= {
            (name, method): int(cell.replace(",", ""))
            for method, cell in zip(head, cells, strict=True)
        }
    return found


@pytest.mark.parametrize("method", METHODS)
def test_bytes_of_one_client(tmp_path, identity, method):
    """Of the second round: in the first, equal tensors go once. About: numbers travel as text."""
    changes = [f"strategy={METHODS[method]}", "rounds=2", "evaluate.every=1", "clients_per_round=2"]
    config = load_config(ROOT / "experiments" / "quickstart.yaml", changes)
    config = config.model_copy(update={"output": str(tmp_path)})
    server, client = make_apps(config)
    grid = WireGrid(client, config.partition.num_clients)
    server(grid, Context(1, 1, {}, RecordDict(), {}))
    expected = table()
    for row, (kind, is_down) in MESSAGES.items():
        log = grid.sent if is_down else grid.returned
        sizes = [size for of, size in log if of == kind]
        assert sizes[-1] == pytest.approx(expected[row, method], rel=0.01, abs=60), row
