"""Weights, frozen parts and cached features in whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlt.check.tiny_runs import APART
from fedlt.config import config_hash
from fedlt.engines.rehearsal import rehearse
from fedlt.errors import FedltError
from fedlt.federation.start import find_start
from fedlt.flower.server_half import make_server_half
from fedlt.runs.evaluations import evaluation_path
from fedlt.simulate import check_runs, run
from strategies import STRATEGIES

LAYERS = ["layers.0", "layers.2"]  # the first convolution of cnn, and its norm
ALL = {"freeze": "all"}
CACHED = {**ALL, "cache_features": True}


@pytest.fixture(scope="session")
def source(reference):
    return reference(rounds=2)


@pytest.fixture(scope="session")
def weights(source, tmp_path_factory):
    """Return a file with the backbone of a run under another beginning, and a classifier."""
    path = tmp_path_factory.mktemp("weights") / "w.pt"
    sent = source.checkpoint.tensors["broadcast"]
    own = {n.replace("backbone.", "module."): t for n, t in sent.items() if "backbone." in n}
    torch.save({**own, "fc.weight": torch.zeros(3, 3)}, path)
    return str(path)


def test_a_run_begins_with_the_generic_model_of_another(lab, source):
    federation = lab.federation(model={"weights": str(source.directory.path)})
    sent = source.checkpoint.tensors["broadcast"]
    for party in federation:
        state = party.build_model().state()
        assert all(torch.equal(state[name], sent[name]) for name in sent)
    [line] = [one for one in federation.observer.notes() if one.startswith("weights of")]
    assert line.endswith("tensors of the backbone, heads.head")
    assert federation.observer.start.lines == (line,)


def test_a_file_fills_the_backbone(lab, source, weights):
    federation = lab.federation(model={"weights": weights})
    sent, plain = source.checkpoint.tensors["broadcast"], lab.federation().view.build_model()
    for name, tensor in federation.view.build_model().state().items():
        given = sent[name] if name.startswith("backbone.") else plain.state()[name]
        assert torch.equal(tensor, given)
    inside = [n for n in sent if n.startswith("backbone.")]
    count = sum(not n.endswith("num_batches_tracked") for n in inside)
    assert federation.observer.start.lines == (
        f"weights of {weights}: {count} of {count} tensors of the backbone",
        "weights: not used: fc.weight",
    )
    assert set(federation.observer.start.lines) < set(federation.observer.notes())


def test_a_network_that_a_plugin_changes_says_what_is_new(lab, weights):
    federation = lab.federation(model={"weights": weights}, client="mdcs", local={"lr": 0.02})
    model = federation.view.build_model()
    plain = lab.federation(model={"weights": weights}).view.build_model()
    assert torch.equal(model.backbone.shared[0].weight, plain.backbone.layers[0].weight)
    [line] = [one for one in federation.observer.notes() if one.startswith("warning: the weights")]
    assert "new: backbone.branches.0." in line


def cut(weights, folder, names, shape=None):
    """Return a file without the named tensors, or with tensors of another shape there."""
    path, found = folder / "cut.pt", torch.load(weights)
    for name in names:
        del found[name]
        found |= {} if shape is None else {name: torch.zeros(shape)}
    torch.save(found, path)
    return str(path)


def test_a_tensor_that_does_not_fit_is_a_warning(lab, weights, tmp_path):
    """The first convolution of the tiny cnn is (2, 1, 3, 3); the file's is of colour images."""
    colour = cut(weights, tmp_path, ["module.layers.0.weight"], (2, 3, 3, 3))
    start = lab.federation(model={"weights": colour}).observer.start
    own = lab.federation().view.build_model().state()["backbone.layers.0.weight"]
    _, warning, unused = start.lines
    assert warning == (
        "warning: the weights leave parts of the backbone: does not fit: "
        f"backbone.layers.0.weight (2, 3, 3, 3) for {tuple(own.shape)}"
    )
    assert "not used: fc.weight" in unused


def test_less_than_half_of_a_backbone_is_questioned(lab, weights, tmp_path):
    names = [n for n in torch.load(weights) if "layers.0." not in n and "fc" not in n]
    start = lab.federation(model={"weights": cut(weights, tmp_path, names)}).observer.start
    assert start.lines[1].startswith("warning: the weights leave parts of the backbone: new: ")
    assert start.lines[1].endswith("more; is this the right network?")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.layers.0.weight"], "backbone.layers.0.weight is frozen, .* fill it; it would"),
        (
            ["module.layers.0.weight", "module.layers.2.bias"],
            "backbone.layers.0.weight and 1 more are frozen, .* does not fill them; they would",
        ),
    ],
)
def test_frozen_parts_must_be_filled(lab, weights, tmp_path, names, expected):
    model = {"weights": cut(weights, tmp_path, names)}
    for freeze in (LAYERS, "all"):
        with pytest.raises(
            FedltError, match=rf"^model.freeze: {expected} stay random. \d+ tensors"
        ):
            lab.federation(model={**model, "freeze": freeze})
    lab.federation(model={**model, "freeze": ["layers.4"]})  # which the file fills


def test_notes_of_frozen_parts(lab, weights):
    """Beside a wholly frozen backbone, the head alone trains: D weights and a bias a class."""
    model = lab.federation().view.build_model()
    head = model.num_classes * (model.num_features + 1)
    total = sum(p.numel() for p in model.parameters())
    notes = lab.federation(model=CACHED).observer.notes()
    assert f"model.freeze: {head:,} of {total:,} parameters train" in notes
    assert "model.freeze: the frozen parts are random: there is no model.weights" in notes
    assert "model.cache_features: features of the frozen backbone are cached" in notes
    notes = lab.federation(model={"weights": weights, **ALL}).observer.notes()
    assert not [line for line in notes if "random" in line or "cached" in line]


def test_a_head_is_taken_whole_or_not_at_all(lab, source):
    """A run of another number of classes: weight and bias of its head have other shapes."""
    view = lab.federation(model={"weights": str(source.directory.path)}).view
    fewer = replace(view, num_classes=view.num_classes - 1, start=None)
    start = find_start(fewer)
    model, plain = (replace(fewer, start=one).build_model() for one in (start, None))
    classes, size = view.num_classes, model.num_features
    assert start.lines[1] == (
        f"weights: a head does not fit: heads.head.weight ({classes}, {size}) for "
        f"({classes - 1}, {size}), heads.head.bias ({classes},) for ({classes - 1},)"
    )
    assert len(start.lines) == 2
    for name in ("heads.head.weight", "heads.head.bias"):
        assert torch.equal(model.state()[name], plain.state()[name])


def test_the_same_bits_in_other_processes(lab, source, weights):
    changes = {"model": {"weights": weights, "freeze": LAYERS}, "rounds": 2}
    assert lab.run(**changes).bits == lab.run(engine={"name": APART}, **changes).bits


def test_frozen_parts_stay_and_are_sent_once(lab, source, weights):
    done = lab.run(model={"weights": weights, "freeze": LAYERS}, rounds=2)
    fixed, sent = done.checkpoint.tensors["fixed"], source.checkpoint.tensors["broadcast"]
    assert set(fixed) == {
        n for n in sent if n.startswith(("backbone.layers.0.", "backbone.layers.2."))
    }
    assert all(torch.equal(tensor, sent[name]) for name, tensor in fixed.items())
    assert done.result["weights"][0].startswith(f"weights of {weights}: ")
    assert source.result["weights"] is None
    assert "backbone.layers.2.running_mean" in fixed
    size, frozen = (sum(t.nbytes for t in part.values()) for part in (sent, fixed))
    assert done.result["bytes_once"] == frozen
    assert done.result["bytes_down"] == size - frozen
    assert done.result["bytes_up"] < source.result["bytes_up"]


def counts(done):
    """Return all integer arrays of a run's evaluations."""
    found = {}
    for row in done.rows:
        path = evaluation_path(done.directory.path, row["round"])
        with np.load(path) as file:
            found |= {(row["round"], n): file[n].tolist() for n in file.files if n != "run"}
    return {key: value for key, value in found.items() if key[1] != "generic.logits"}


@pytest.mark.parametrize("strategy", ["fedavg", "fedrod", "fedrep"])
def test_cached_features_give_the_same_hits(lab, weights, strategy):
    plain = counts(lab.run(strategy=strategy, model={"weights": weights, **ALL}, rounds=2))
    cached = counts(lab.run(strategy=strategy, model={"weights": weights, **CACHED}, rounds=2))
    hits = [key for key in plain if "hits" in key[1] or "confusion" in key[1]]
    assert len(hits) > 4
    assert all(plain[key] == cached[key] for key in hits)


def test_a_cached_run_stacks(lab, weights):
    config = {"model": {"weights": weights, **CACHED}, "rounds": 1}
    alone, stacked = lab.run(**config), lab.run(engine={"name": "stacked"}, **config)
    head = [one.checkpoint.tensors["broadcast"]["heads.head.weight"] for one in (alone, stacked)]
    torch.testing.assert_close(*head, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"cache_features": True, "freeze": LAYERS}}, "backbone.layers.4.weight is not"),
        ({"local": {"augment": "crop"}}, "local.augment must be none, not crop"),
        ({"local": {"precision": "bfloat16"}}, "local.precision must be float32"),
        ({"client": "fedyoyo"}, "'fedyoyo' shows its network views"),
        ({"client": "mixup"}, "makes images of its own"),
    ],
)
def test_what_cannot_be_cached_is_refused(lab, changes, reason):
    def prepare():
        parties = lab.federation(**{"model": CACHED, **changes})
        rehearse(parties, make_server_half(parties.view))

    with pytest.raises(FedltError, match=f"^model.cache_features: .*{reason}"):
        prepare()


def test_a_cache_needs_a_frozen_backbone(lab):
    with pytest.raises(ValueError, match="cache_features: needs freeze: all"):
        lab.config(model={"cache_features": True})


def test_weights_that_do_not_fit_are_refused(lab, weights, tmp_path):
    for model, reason in (
        ({"weights": weights, "name": "resnet8"}, "no tensor of .* fits the network resnet8"),
        ({"weights": weights, "width": 3}, r"cnn: .*weight \(4, 1, 3, 3\).* has .*\(3, 1, 3, 3\)"),
        ({"weights": str(tmp_path)}, "is no run"),
    ):
        with pytest.raises(FedltError, match=reason):
            lab.federation(model=model)


def test_changed_weights_are_named(lab, weights, tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(Path(weights).read_bytes())
    config = lab.stopped(1, model={"weights": str(path)}, rounds=2)
    before = config_hash(config)
    done = lab.resume(config)
    assert run(config) == done.result
    torch.save({n: t + 1 for n, t in torch.load(path).items()}, path)
    assert config_hash(config) != before
    with pytest.raises(FedltError, match=r"holds another run: model.weights has changed; name="):
        run(config)
    path.unlink()
    with pytest.raises(FedltError, match=r"^model\.weights: no file"):
        run(config)
    plain = config.model_copy(update={"model": config.model.model_copy(update={"weights": None})})
    with pytest.raises(FedltError, match=r"another run: model.weights is no longer given; name="):
        run(plain)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"weights": "gone.pt"}, "model.weights: no file"),
        ({"weights": "."}, "model.weights: .* is no run"),
        ({"name": "timm:resnet81", "width": None}, "model.name: timm has no network 'resnet81'"),
        (
            {"name": "torchvision:resnet18", "options": {"pretrained": True}, "width": None},
            "model.options: pretrained would download",
        ),
        ({"name": "resnet19"}, "model.name: unknown backbone 'resnet19'"),
        ({"name": "gone.py:Net"}, "model.name: no file"),
        ({"norm": "none"}, "model.norm: cnn takes no norm"),
        ({"weights": None}, "holds another run: model.weights is no longer given; name="),
        ({"width": 5}, "holds another run: another model.width; name="),
    ],
    ids=str,
)
def test_a_mistake_is_named_before_the_run_that_is_there(lab, weights, model, reason):
    config = lab.config(model={"weights": weights}, rounds=1)
    run(config)
    with pytest.raises(FedltError, match=f"^[^;]*{reason}"):
        check_runs(lab.config(model={"weights": weights, **model}, rounds=1, name=config.name))


def test_other_mistakes_are_named_before_the_run_that_is_there(lab):
    config = lab.config(rounds=1)
    run(config)
    data = {"data": {"dataset": "digitz"}}
    cached = {"model": {**CACHED, "weights": None}, "local": {"augment": "crop"}}
    method = {"strategy": "fedlog"}
    for changes, reason in (
        (data, "data.dataset: unknown 'digitz'"),
        (cached, "model.cache_features: local.augment must be none"),
        (method, "strategy.name: unknown strategy 'fedlog'"),
        ({"partition": {"file": "gone.json"}}, "partition.file 'gone.json': "),
        ({"data": {"dataset": "gone.py:load"}}, "data.dataset: no file 'gone.py'"),
    ):
        with pytest.raises(FedltError, match=f"^{reason}"):
            check_runs(lab.config(rounds=1, name=config.name, **changes))


def test_a_wrong_network_shows_the_names_that_differ(lab, tmp_path):
    """Of two names one is the network's own, in another shape: the other is named first."""
    torch.save({"layers.0.weight": torch.zeros(9, 9), "b.2.w": torch.zeros(7)}, tmp_path / "w.pt")
    with pytest.raises(FedltError) as caught:
        lab.federation(model={"weights": str(tmp_path / "w.pt")})
    words = "it has b.2.w (7,), layers.0.weight (9, 9); the network has layers.2.weight (4,), "
    assert words in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("model", [{"freeze": LAYERS}, ALL, CACHED], ids=["part", "all", "cached"])
def test_every_strategy_trains_beside_a_frozen_backbone(lab, weights, strategy, model):
    done = lab.run(strategy=strategy, model={"weights": weights, **model}, rounds=2)
    assert done.result["status"] == "finished"
