"""Devices: refused where they are not there, and the same learning on a GPU as on the CPU."""

from __future__ import annotations

import pytest
import torch

from fedlt.errors import FedltError
from fedlt.machine.devices import SharedCopies, find_device
from fedlt.machine.memory import Layout, find_block

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_auto_is_the_cpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto").type == find_device("cpu").type == "cpu"
    with pytest.raises(FedltError, match=r"engine\.device: cuda: torch finds no GPU"):
        find_device("cuda")


def test_auto_is_the_gpu_with_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto").type == find_device("cuda").type == "cuda"


def test_on_the_cpu_nothing_is_copied():
    tensors = {"w": torch.ones(3)}
    assert SharedCopies(torch.device("cpu")).of("broadcast", tensors) is tensors


def test_copies_are_made_once_while_the_tensors_stay_and_keep_their_block():
    """The ``meta`` device stands for one that is not the CPU: it holds shapes only."""
    loose = {"w": torch.ones(3), "b": torch.ones(2, 2)}
    tensors = Layout.of(loose).fill(loose)
    copies = SharedCopies(torch.device("meta"))
    first = copies.of("broadcast", tensors)
    assert {name: (t.device.type, t.shape) for name, t in first.items()} == {
        "w": ("meta", (3,)),
        "b": ("meta", (2, 2)),
    }
    assert find_block(first) is not None
    assert copies.of("broadcast", dict(tensors)) is first
    assert copies.of("fixed", tensors) is not first
    assert copies.of("broadcast", {**tensors, "b": torch.ones(2, 2)}) is not first


def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights(lab):
    """Rounding to 8 bits of mantissa: the same loss within a few percent, never the same bits."""
    runs = {p: lab.run(rounds=2, local={"precision": p}) for p in ("float32", "bfloat16")}
    loss = {p: run.rows[-1]["train/loss"] for p, run in runs.items()}
    assert loss["bfloat16"] == pytest.approx(loss["float32"], rel=0.05)
    assert loss["bfloat16"] != loss["float32"]
    weights = [
        t
        for t in runs["bfloat16"].checkpoint.tensors["broadcast"].values()
        if t.is_floating_point()
    ]
    assert {tensor.dtype for tensor in weights} == {torch.float32}


@gpu
@pytest.mark.parametrize("strategy", ["fedavg", "fedloge"])
def test_a_gpu_learns_what_the_cpu_learns(lab, strategy):
    runs = {
        device: lab.run(rounds=2, strategy=strategy, engine={"name": "serial", "device": device})
        for device in ("cpu", "cuda")
    }
    for name, tensor in runs["cpu"].checkpoint.tensors["broadcast"].items():
        torch.testing.assert_close(
            runs["cuda"].checkpoint.tensors["broadcast"][name], tensor, rtol=1e-3, atol=1e-4
        )
