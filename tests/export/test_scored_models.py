"""Exported models predict what the run scored: expected values are those of evaluations/*.npz."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from built_in import BUILT_IN
from tiers import slow_but

import fedlt.export.opening
from fedlt.data import prepare_data
from fedlt.errors import FedltError
from fedlt.export import export_run, load_model, scored_model
from fedlt.export.program import program_of, trace
from fedlt.export.program_model import ProgramModel
from strategies import STRATEGIES, FedAvg

ONE = {"clients_per_round": 1, "rounds": 1}
METHODS = {name: BUILT_IN[name] for name in STRATEGIES}
STREAMS = {name: BUILT_IN[name] for name in ("fedloge_experts+mdcs", "fedavg+deit_lt")}
SETTINGS = {**METHODS, **STREAMS}
POLICIES = {
    "FedAdam": {"strategy": "flwr.serverapp.strategy:FedAdam"},
    "local": {"strategy": "fedloge", "batchnorm": "local"},
    "pooled": {"strategy": "fedloge", "batchnorm": "pooled"},
    "group": {"model": {"norm": "group"}},
    "refresh": {"strategy": "fedrod", "personal": {"refresh": {"scope": "all", "epochs": 1}}},
    "one tuned": {"strategy": "fedavg_ft", **ONE},
    "one alone": {"strategy": "local_only", **ONE},
    "one of FedLoGe": {"strategy": "fedloge", **ONE},
    "one with prior": {
        **ONE,
        "client": "balanced_softmax",
        "prior": {"use": "mix", "source": "secure_sum"},
        "clients_per_round": 2,
        "personal": {"refresh": {"epochs": 1}},
    },
    "blocks": {"evaluate": {"batch_size": 16}},
    "mlp": {"model": {"name": "mlp", "width": 8}},
    "resnet": {"strategy": "fedper", "model": {"name": "resnet8", "width": 4}},
}
ONE_OF_A_KIND = {"fedavg", "fedloge", "ditto", "creff", "fedproto"}  # fast, with "one tuned"
in_settings = slow_but(ONE_OF_A_KIND, SETTINGS)
in_policies = slow_but({"one tuned"}, POLICIES)


def counts(outcome):
    """Return hits by class as the last evaluation has them: (client or None, head) -> (C,)."""
    last = outcome.result["rounds"]
    with np.load(outcome.directory.evaluations / f"round_{last}.npz") as file:
        confusion = dict(zip(file["generic.heads"], file["generic.confusion"], strict=True))
        found = {(None, str(head)): table.diagonal() for head, table in confusion.items()}
        for cid, hits in zip(file["personal.cids"], file["personal.hits"], strict=True):
            found |= {
                (int(cid), str(head)): own
                for head, own in zip(file["personal.heads"], hits, strict=True)
            }
    return found


@pytest.fixture(scope="module")
def test_set(lab_factory):
    """The tiny configuration's test images and labels, which every setting here has."""
    config = lab_factory("images").config()
    data = prepare_data(config.data, config.partition, seed=config.seed)
    return torch.from_numpy(data.eval_images.copy()), torch.from_numpy(data.eval_labels.copy())


@torch.no_grad()
def hits(model, test_set, batch_size):
    images, labels = test_set
    predicted = torch.cat([model(block).argmax(1) for block in images.split(batch_size)])
    return torch.bincount(labels[predicted == labels], minlength=4).tolist()


def check_all(outcome, test_set):
    """Compare every model and head with the run; return the models by client and head."""
    expected = counts(outcome)
    size = outcome.directory.config().evaluate.batch_size
    models = {}
    for (client, head), wanted in expected.items():
        model = scored_model(outcome.directory.path, client=client, head=head)
        assert hits(model, test_set, size) == wanted.tolist(), (client, head)
        assert model.info["score"]["class_hits"] == wanted.tolist()
        models[client, head] = model
    kinds = {client for client, _ in models}
    assert kinds == ({None} if None in kinds else set()) | set(range(5))
    return models


@in_settings
def test_class_hits_are_those_of_the_run(reference, test_set, changes):
    """Every generic head, and every head of every client."""
    check_all(reference(**changes), test_set)


@in_policies
def test_policies_and_clients_that_never_took_part(reference, test_set, changes):
    check_all(reference(**changes), test_set)


@slow_but((), {name: SETTINGS[name] for name in (*sorted(ONE_OF_A_KIND), *STREAMS)})
def test_every_format_of_a_method_of_each_kind(reference, test_set, tmp_path, changes):
    """The last bits of onnxruntime differ, so its logits are compared within 1e-3."""
    outcome = reference(**changes)
    size = outcome.directory.config().evaluate.batch_size
    firsts = dict(reversed(counts(outcome)))
    for client in {*firsts} & {None, 3}:
        eager = scored_model(outcome.directory.path, client=client)
        wanted = counts(outcome)[client, eager.info["head"]].tolist()
        for kind in ("safetensors", "pt2", "onnx"):
            file = tmp_path / f"{client}.{kind}"
            export_run(outcome.directory.path, client=client, output=file)
            read = load_model(file)
            if kind == "onnx":
                torch.testing.assert_close(
                    read(test_set[0]), eager(test_set[0]), atol=1e-3, rtol=1e-3
                )
            else:
                assert hits(read, test_set, size) == wanted
                assert torch.equal(read(test_set[0]), eager(test_set[0]))
        program = torch.export.load(tmp_path / f"{client}.pt2").module()
        assert hits(program, test_set, size) == wanted


# ---- users' methods


@dataclass(frozen=True)
class Closed(FedAvg):
    """Heads that hide their tensors in a closure, and in a bound function of a bound function."""

    def generic(self, model, broadcast):
        weight, bias = broadcast["heads.head.weight"], broadcast["heads.head.bias"]
        bound = partial(partial(_scaled, 2.0, weight), bias=bias)
        return {
            "hidden": lambda features: _scaled(2.0, weight, features, bias=bias),
            "bound": bound,
        }


def _scaled(factor, weight, features, *, bias):
    return factor * (features @ weight.T + bias)


def test_a_head_may_be_any_function(reference, test_set):
    outcome = reference(strategy={"name": f"{__file__}:Closed"})
    models = check_all(outcome, test_set)
    for head in ("hidden", "bound"):
        model = models[None, head]
        program, tensors = program_of(trace(model), model.info)
        assert torch.equal(ProgramModel(program, tensors)(test_set[0]), model(test_set[0]))
    assert {n for n in tensors if n.startswith("head.")} == {"head.weight", "head.bias"}


# ---- the data


def test_no_data_are_read_where_none_are_needed(reference, monkeypatch):
    def refuse(*given, **more):
        raise AssertionError("the data are loaded")

    outcome = reference(strategy="fedloge")
    monkeypatch.setattr(fedlt.export.opening, "prepare_parties", refuse)
    for client in (None, 0):
        scored_model(outcome.directory.path, client=client)
    tuned = reference(strategy="fedavg_ft", **ONE)
    scored_model(tuned.directory.path)
    with pytest.raises(AssertionError, match="the data are loaded"):
        scored_model(tuned.directory.path, client=0)


def test_a_run_of_an_older_version_loads_its_data(lab, test_set, monkeypatch):
    """Its result does not describe the images."""
    outcome = lab.run()
    run = fedlt.export.opening.FinishedRun.at(outcome.directory.path)
    older = {k: v for k, v in run.result.items() if k not in ("images", "class_names")}
    at = dataclasses.replace(run, result=older)
    monkeypatch.setattr(fedlt.export.opening.FinishedRun, "at", lambda path: at)
    check_all(outcome, test_set)


def write_arrays(path, kind):
    """Write 60 training and 20 test images of 4 classes and return them with the labels."""
    generator, labels = np.random.default_rng(0), np.arange(60) % 4
    if kind == "features":
        images = generator.normal(size=(80, 7)).astype(np.float32)
    elif kind == "float":
        images = generator.random((80, 3, 10, 14), dtype=np.float32)
    else:
        images = generator.integers(0, 256, (80, 4, 9, 8), dtype=np.uint8)
    noun = "features" if kind == "features" else "images"
    np.savez(
        path,
        **{f"train_{noun}": images[:60], f"test_{noun}": images[60:]},
        train_labels=labels,
        test_labels=labels[:20],
    )
    tensor = torch.from_numpy(images[60:])
    return tensor[:, :, None, None] if kind == "features" else tensor, torch.from_numpy(labels[:20])


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("float", "cnn"),
        pytest.param("rgba", "mlp", marks=pytest.mark.slow),
        pytest.param("features", "identity", marks=pytest.mark.slow),
    ],
)
def test_images_of_every_kind(lab, tmp_path, kind, network):
    """Float and not square, with four channels, and vectors; as the test set's file has them."""
    test_set = write_arrays(tmp_path / "own.npz", kind)
    source = {
        "dataset": "features" if kind == "features" else "npz",
        "options": {"path": str(tmp_path / "own.npz")},
        "imbalance_factor": 1,
    }
    width = None if network == "identity" else 4
    outcome = lab.run(data=source, model={"name": network, "width": width}, rounds=1)
    models = check_all(outcome, test_set)
    model = models[None, "head"]
    shape = list(test_set[0].shape[1:])
    assert model.info["input"]["shape"] == ["batch", *shape]
    export_run(outcome.directory.path, output=tmp_path / "model.pt2")
    assert torch.equal(load_model(tmp_path / "model.pt2")(test_set[0]), model(test_set[0]))


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_weights_that_a_run_began_with_are_not_needed(lab, test_set, tmp_path, cached):
    """A frozen backbone lies in the checkpoint; with its features cached, images go in as well."""
    start = lab.federation(seed=7).view.build_model().backbone.state_dict()
    safetensors.torch.save_file(start, tmp_path / "start.safetensors")
    network = {"weights": str(tmp_path / "start.safetensors"), "freeze": "all"}
    outcome = lab.run(strategy="fedrod", model={**network, "cache_features": cached})
    (tmp_path / "start.safetensors").unlink()
    model = check_all(outcome, test_set)[None, "head"]
    assert torch.equal(model.backbone.state_dict()["layers.0.weight"], start["layers.0.weight"])


DATA = """
import numpy as np
from fedlt.data.dataset import dataset_from_arrays

def load(folder):
    file = np.load(f"{folder}/images.npz")
    return dataset_from_arrays("own", *(file[n] for n in ("x", "y", "tx", "ty")))
"""


def test_the_data_of_a_tuned_model_are_those_of_the_run(lab, tmp_path):
    """With other images a personal model would be another one; the generic model is the same."""

    def write(seed):
        images = np.random.default_rng(seed).integers(0, 256, (240, 8, 8), dtype=np.uint8)
        labels = np.arange(200) % 4
        arrays = {"x": images[:200], "y": labels, "tx": images[200:], "ty": labels[:40]}
        np.savez(tmp_path / "images.npz", **arrays)

    (tmp_path / "own.py").write_text(DATA)
    write(1)
    dataset = {"dataset": f"{tmp_path}/own.py:load", "options": {"folder": str(tmp_path)}}
    outcome = lab.run(strategy="fedavg_ft", data=dataset, rounds=1)
    path = outcome.directory.path
    scored_model(path, client=0)
    write(2)
    scored_model(path)
    with pytest.raises(
        FedltError, match=r"cannot be exported: .*the test images differ; the train"
    ):
        scored_model(path, client=0)
