"""What cannot be stacked is refused in one line, with the reason, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlt.cli import main

FILE = """
from dataclasses import dataclass

import torch

from fedlt.client import ClientPlugin
from strategies import FedAvg

SEEN = {}


class Mine(FedAvg):
    def objective(self, client, batch):
        loss = super().objective(client, batch)
        OBJECTIVE
        return loss


class Closure(FedAvg):
    def local_update(self, client):
        cid = client.cid
        return client.update(client.train(lambda c, b: self.objective(c, b) * (cid + 1)))


class Shapes(FedAvg):
    def local_update(self, client):
        client.tensors["memory"] = torch.zeros(client.data.num_examples + client.cid)
        return super().local_update(client)


class Hidden(FedAvg):
    def local_update(self, client):
        SEEN["factor"] = 1.0 + client.cid
        return super().local_update(client)

    def objective(self, client, batch):
        return super().objective(client, batch) * SEEN["factor"]


class Broken(FedAvg):
    def local_update(self, client):
        raise KeyError("anchor")


class Hard(ClientPlugin):
    def batches(self, client, epoch):
        for batch in super().batches(client, epoch):
            client.model(batch.images)
            yield batch


class Curriculum(ClientPlugin):
    def batches(self, client, epoch):
        client.tensors["weight"] = torch.ones(())
        yield from super().batches(client, epoch)


class Mute(ClientPlugin):
    def loss(self, logits, batch, client):
        return logits.detach().mean()
"""
OBJECTIVES = {
    "item": ("loss = loss * (1 + loss.item())", "calling .item() on a Tensor"),
    "branch": ("loss = loss * 2 if loss > 1 else loss", "data-dependent control flow"),
    "mask": ("loss = loss + batch.images[batch.images > 0].mean()", "dynamic shape"),
    "dropout": ("loss = loss + torch.dropout(batch.images, 0.5, True).mean()", "random"),
    "cid": ("loss = loss * client.cid", "the objective reads client.cid, which is each client's"),
    "data": ("loss = loss * client.data.num_examples", "the objective reads client.data"),
    "personal": ("loss = loss * len(client.personal)", "the objective reads client.personal"),
    "vector": ("loss = loss + torch.zeros(3)", "the loss must be a scalar tensor"),
}
BASE = """
name: a
rounds: 1
data: {dataset: synthetic, options: {num_classes: 4, train_per_class: 20, test_per_class: 5}}
partition: {num_clients: 3}
model: {width: 4}
engine: {name: stacked}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def refusal(capsys, method: str, objective: str = "pass", section: str = "strategy") -> str:
    """Run a method on the stacked engine and return the line that refuses it."""
    Path("mine.py").write_text(FILE.replace("OBJECTIVE", objective))
    Path("a.yaml").write_text(f"{BASE}\n{section}: mine.py:{method}\n")
    assert main(["run", "a.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    executed, line = captured.err.splitlines()
    assert executed.startswith("executes ")
    assert line.startswith("error: ")
    files = {str(path) for path in Path().rglob("*") if "__pycache__" not in path.parts}
    assert files == {"a.yaml", "mine.py"}
    return line


@pytest.mark.parametrize(("objective", "reason"), OBJECTIVES.values(), ids=OBJECTIVES)
def test_objectives_that_cannot_be_stacked(capsys, objective, reason):
    line = refusal(capsys, "Mine", objective)
    assert reason in line
    if "scalar" not in reason:  # that one is wrong on every engine
        assert "engine.name: 'stacked' cannot run Mine with cross_entropy: " in line
        assert "line 15 of" in line
        assert line.endswith("'serial' and 'ray' can")


@pytest.mark.parametrize(
    ("section", "method", "reason"),
    [
        ("strategy", "Closure", "two clients differ in the function given to client.train"),
        ("strategy", "Shapes", "two clients differ in the names or shapes of client.tensors"),
        ("strategy", "Hidden", "off the one that it makes alone: its objective is not pure"),
        ("strategy", "Broken", "fails: KeyError: 'anchor'"),
        ("client", "Hard", "batches reads client.model"),
        ("client", "Curriculum", "batches changes client.tensors"),
        ("client", "Mute", "the loss must be a scalar tensor with a gradient"),
    ],
)
def test_methods_that_cannot_be_stacked(capsys, section, method, reason):
    line = refusal(capsys, method, section=section)
    assert reason in line
    assert method in line


def test_the_same_methods_run_on_the_serial_engine(capsys):
    Path("mine.py").write_text(FILE.replace("OBJECTIVE", OBJECTIVES["item"][0]))
    Path("a.yaml").write_text(BASE.replace("stacked", "serial") + "strategy: mine.py:Mine\n")
    assert main(["run", "a.yaml"]) == 0


def test_a_stack_of_no_clients_is_refused(capsys):
    Path("a.yaml").write_text(BASE.replace("name: stacked", "name: stacked, stack: 0"))
    assert main(["run", "a.yaml"]) == 2
    assert "engine.stack" in capsys.readouterr().err
