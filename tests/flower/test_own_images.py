"""A federation whose images stay at the nodes: against a simulation that has them all."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from wire_grid import WireGrid

from fedlt.apps import make_apps
from fedlt.check.tiny_runs import read_checkpoint, read_rows
from fedlt.config.partition_section import PartitionConfig
from fedlt.errors import FedltError
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

pytestmark = pytest.mark.usefixtures("identity")
SIZES = {  # images of each node by class: one node lacks a class, one has a single class
    0: ([12, 6, 0], [4, 2, 0]),
    1: ([5, 9, 7], [2, 3, 2]),
    2: ([0, 0, 8], [0, 0, 3]),
}
CLASSES = ["ape", "bee", "cat"]


def images(draw, counts):
    labels = np.repeat(np.arange(3), counts)
    x = draw.integers(0, 200, (len(labels), 6, 5, 1), np.uint8)
    x[np.arange(len(labels)), labels, labels] = 255  # something to learn
    return x, np.array(CLASSES)[labels]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder for each node, and one with everybody's images and their clients."""
    top, draw = tmp_path_factory.mktemp("nodes"), np.random.default_rng(3)
    pooled = {key: [] for part in ("train", "test") for key in (f"{part}_images", f"{part}_labels")}
    owners = {"train_clients": [], "test_clients": []}
    for cid, sizes in SIZES.items():
        arrays = {}
        for part, counts in zip(("train", "test"), sizes, strict=True):
            x, y = images(draw, counts)
            arrays |= {f"{part}_images": x, f"{part}_labels": y}
            owners[f"{part}_clients"] += [cid] * len(y)
        (top / str(cid)).mkdir()
        np.savez(top / str(cid) / "mine.npz", **arrays)
        for key, array in arrays.items():
            pooled[key].append(array)
    whole = {key: np.concatenate(parts) for key, parts in pooled.items()}
    np.savez(top / "all.npz", **whole, **owners)
    x = whole["train_images"] / 255
    return top, [float(x.mean())], [float(x.std())]


def simulation(lab, top, **changes):
    config = lab.fresh(
        data={"dataset": "npz", "options": {"path": str(top / "all.npz")}, "imbalance_factor": 1.0},
        evaluate={"local_test": "own"},
        **changes,
    )
    return config.model_copy(update={"partition": PartitionConfig(scheme="natural")})


@pytest.fixture
def deployed(lab, places):
    """Return what runs a configuration with images at the nodes."""

    def run(*, folders=None, deployment=None, options=None, config=None, **changes):
        top, mean, std = places
        rules = {
            "data": "nodes", "image_shape": [1, 6, 5], "mean": mean, "std": std, "wait": 5.0,
            "test": {"dataset": "npz", "options": {"path": str(top / "all.npz")}},
        } | (deployment or {})  # fmt: skip
        config = lab.fresh(
            data={
                "dataset": "npz",
                "options": {"path": "mine.npz", "classes": CLASSES} | (options or {}),
                "imbalance_factor": 1.0,
            },
            partition={"scheme": "dirichlet", "num_clients": 3},
            deployment=rules,
            **changes,
        )
        server, client = make_apps(config)
        grid = WireGrid(client, 0)
        for cid, folder in (folders or {cid: top / str(cid) for cid in SIZES}).items():
            grid.join(cid, **({} if folder is None else {"data": str(folder)}))
        server(grid, Context(1, 1, {}, RecordDict(), {}))
        return RunDirectory.of(config), grid

    return run


def tensors(directory):
    return read_checkpoint(directory).tensors["broadcast"]


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "ditto", "fedavg_ft"])
def test_the_numbers_are_those_of_a_simulation_with_all_images(lab, places, deployed, strategy):
    """The same weights, and with counts by class the same rows."""
    changes = {"strategy": strategy, "clients_per_round": 2}
    config = simulation(lab, places[0], **changes)
    run(config)
    expected = RunDirectory.of(config)
    found, _ = deployed(**changes, deployment={"answers": "per_class"})
    assert read_rows(found) == read_rows(expected)
    for name, tensor in tensors(expected).items():
        assert torch.equal(tensors(found)[name], tensor), name
    assert found.result()["shots"] == expected.result()["shots"]


def test_totals_are_plain_shares_of_hits(lab, places, deployed):
    """Hits on the nodes' own images, summed over classes, by the counts of the other mode."""
    by_class, _ = deployed(deployment={"answers": "per_class"}, clients_per_round=None)
    found, _ = deployed(clients_per_round=None)
    last = by_class.evaluation(by_class.result()["rounds"]).personal
    tests = np.array([sum(counts) for _, counts in SIZES.values()])
    row = read_rows(found)[-1]
    wanted = last.hits[:, 0].sum(axis=1) / tests
    assert row["personal/accuracy"] == pytest.approx(wanted.mean())
    assert row["personal/worst"] == pytest.approx(wanted.min())
    base = last.generic_hits.sum(axis=1) / tests
    assert row["personal/gain"] == pytest.approx((wanted - base).mean(), abs=1e-12)
    assert row["personal/majority_guess"] == pytest.approx((4 / 6 + 3 / 7 + 3 / 3) / 3)
    assert row["personal/balanced"] is None
    assert row["generic/accuracy"] == read_rows(by_class)[-1]["generic/accuracy"]


def test_without_a_public_test_set_the_generic_view_is_a_dash(deployed, caplog):
    caplog.set_level(logging.INFO, "flwr")
    found, _ = deployed(deployment={"test": None})
    row = read_rows(found)[-1]
    assert row["generic/accuracy"] is None
    assert 0 < row["personal/accuracy"] < 1
    assert "no public test set" in caplog.text


@pytest.mark.parametrize("mechanism", ["central", "local"])
def test_no_seed_tells_the_noise_of_nodes(deployed, mechanism):
    """Twice the same file: other noise, since the nodes know its seed; epsilon is the same."""
    pytest.importorskip("dp_accounting")
    privacy = {"mechanism": mechanism, "norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-2}
    model = {"name": "mlp", "width": 8, "norm": "none"}
    runs = [deployed(privacy=privacy, model=model, rounds=1, name=f"noise-{n}") for n in range(2)]
    first, second = (tensors(directory) for directory, _ in runs)
    names = [name for name in first if name.startswith("backbone")]
    assert names
    assert not any(torch.equal(first[name], second[name]) for name in names)
    spent = [directory.result()["privacy"]["epsilon"] for directory, _ in runs]
    assert spent[0] == spent[1] > 0


def test_a_sum_of_class_counts_is_asked_openly(lab, places, deployed):
    """The prior of all clients, as the oracle of a simulation has it."""
    changes = {"client": "balanced_softmax", "clients_per_round": None}
    config = simulation(lab, places[0], prior={"use": "global", "source": "oracle"}, **changes)
    run(config)
    found, _ = deployed(prior={"use": "global", "source": "sum"}, **changes)
    for name, tensor in tensors(RunDirectory.of(config)).items():
        assert torch.equal(tensors(found)[name], tensor), name


def test_changed_images_at_a_node_are_another_run(lab, places, deployed, tmp_path):
    top, _, _ = places
    first, _ = deployed(name="same")
    again, _ = deployed(name="same")
    assert first.result() == again.result()
    x, y = images(np.random.default_rng(9), [12, 6, 0])
    tx, ty = images(np.random.default_rng(10), [4, 2, 0])
    np.savez(tmp_path / "mine.npz", train_images=x, train_labels=y, test_images=tx, test_labels=ty)
    with pytest.raises(FedltError, match="the images of client 0 differ"):
        deployed(name="same", folders={0: tmp_path, 1: top / "1", 2: top / "2"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"options": {"classes": ["ape", "bee"]}},
            "class .cat. is not one of data",
        ),
        (
            {"deployment": {"image_shape": [1, 6, 6]}},
            r"images are \[1, 6, 5\], deploy",
        ),
        (
            {"prior": {"use": "global", "source": "oracle"}},
            "oracle is for simulations",
        ),
        ({"strategy": "centralised"}, "strategy 'centralised': trains on everybody's images"),
        ({"faults": {"lost": {"rate": 0.5}}}, "faults: are injected in simulations only"),
        ({"evaluate": {"local_test": "sampled"}}, "evaluate.local_test: sampled needs a test set"),
        ({"diagnostics": {"every": 1}}, "diagnostics: read clients' images"),
        ({"folders": {0: None, 1: None, 2: None}}, r"has no data: flower-supernode --node-config"),
        ({"folders": {0: "/nowhere"}}, r"data='/nowhere': no such folder or file"),
    ],
)
def test_what_cannot_be_is_one_line(deployed, changes, words):
    with pytest.raises(FedltError, match=words) as error:
        deployed(**changes, name="wrong")
    assert "\n" not in str(error.value)
