"""Centralised training: what one client with all images does, whoever holds them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from fedlt.comparing.terminal import result_table
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.runs.evaluations import evaluation_path, load_evaluation
from fedlt.worker.worker import Worker
from strategies import Centralised

POOLED = {"strategy": "centralised"}


def weights(outcome):
    return {name: t.numpy().tobytes() for name, t in outcome.groups["broadcast"].items()}


def test_the_partition_changes_the_personal_view_alone(reference):
    one, other = (reference(**POOLED, partition={"dirichlet_alpha": alpha}) for alpha in (0.2, 5.0))
    assert weights(one) == weights(other)
    assert one.rows[-1]["generic/accuracy"] == other.rows[-1]["generic/accuracy"]
    assert one.rows[-1]["personal/accuracy"] != other.rows[-1]["personal/accuracy"]


def test_the_personal_view_is_each_clients_own_mix(reference):
    """sum over c of q_kc recall(c), from the confusion matrix; nobody is left out."""
    outcome = reference(**POOLED)
    saved = load_evaluation(evaluation_path(outcome.directory.path, 3))
    confusion = saved.generic.confusion[0]
    recalls = np.diag(confusion) / confusion.sum(axis=1)
    mixes = saved.client_counts / saved.client_counts.sum(axis=1, keepdims=True)
    row = outcome.rows[-1]
    assert row["personal/accuracy"] == pytest.approx((mixes @ recalls).mean())
    assert row["personal/gain"] == 0
    assert (row["personal/never"], row["train/coverage"]) == (0, 1.0)


@pytest.mark.parametrize(("epochs", "passes"), [(None, 6 / 5), (0.25, 0.25), (2, 2)])
def test_a_round_takes_as_many_steps_as_the_file_says(lab, epochs, passes):
    """2 local epochs of 3 of 5 clients are 6/5 passes; a pass is ceil(N / 8) steps."""
    strategy = {"name": "centralised"} | ({} if epochs is None else {"epochs": epochs})
    federation = lab.federation(strategy=strategy, local={"epochs": 2})
    state = make_server_half(federation.view).state
    worker = Worker(federation.shares)
    client = worker.client(0, 1, state.broadcast, fixed=state.fixed, personal={})
    counts = np.bincount(federation.observer.data.train_labels)
    assert client.tensors["class_counts"].tolist() == counts.tolist()
    assert torch.allclose(client.tensors["log_prior"].exp(), torch.tensor(counts).float())
    steps = -(-len(federation.observer.data.train_labels) // 8)
    assert worker.train(client).metrics["steps"] == int(passes * steps)


def test_it_is_marked_as_a_reference(reference):
    result = reference(**POOLED).result
    assert result["reference"] == "pooled data"
    assert result["bytes_down"] == 0
    assert reference().result["reference"] is None
    console = Console(width=120, file=io.StringIO())
    console.print(result_table(result))
    assert "(reference, not federated: pooled data)" in console.file.getvalue()


def test_personal_refresh_uses_each_clients_own_images(reference):
    refreshed = reference(**POOLED, personal={"refresh": {"epochs": 1}})
    assert weights(refreshed) == weights(reference(**POOLED))
    assert refreshed.rows[-1]["personal/gain"] != 0


def test_wrong_settings(lab):
    with pytest.raises(FedltError, match="batchnorm: local: needs clients"):
        lab.federation(**POOLED, batchnorm="local")
    with pytest.raises(FedltError, match="faults: needs clients"):
        lab.federation(**POOLED, faults={"lost": {"rate": 0.1}})
    with pytest.raises(ValueError, match="epochs is 0; expected more than 0"):
        Centralised(epochs=0)
