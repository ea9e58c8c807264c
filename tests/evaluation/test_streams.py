"""Streams scored one by one beside the fused head: by hand, and against a scorer of the test's own.

The scorer of the test loads a run's last checkpoint, computes the primary head's logits of all test
images at once and counts hits in plain NumPy.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from tiers import WITH_TIMM
from torch import nn

from clients import CrossEntropy
from fedlt.data.augment import normalize
from fedlt.data.shots import ShotGroups
from fedlt.errors import FedltError
from fedlt.evaluation import generic_metrics, score_generic
from fedlt.evaluation.scores import GenericScores
from fedlt.models import Model
from fedlt.runs.evaluations import load_evaluation, save_evaluation
from fedlt.runs.rescoring import Cut, rescore

SHOTS = ShotGroups("rank", many=(0,), medium=(1,), few=(2,))
NAMES = ("first", "second", "third")
LOGITS = torch.tensor(  # (4 images, 3 streams, 3 classes)
    [
        [[3.0, 0, 0], [0, 1, 0], [0, 0, 2]],
        [[2.0, 0, 0], [0, 3, 0], [0, 1, 0]],
        [[4.0, 0, 0], [0, 0, 3], [0, 0, 2]],
        [[1.0, 0, 0], [0, 5, 0], [0, 0, 3]],
    ]
)
LABELS = torch.tensor([0, 1, 2, 2])
WORDS = ("accuracy", "many", "medium", "few")
MDCS = ("many_expert", "medium_expert", "few_expert")


def mean(logits):
    return logits.mean(dim=1)


def identity(features):
    return features


def score(logits=LOGITS, labels=LABELS, *, heads=None, streams=NAMES, block_size=3):
    heads = heads or {"main": identity}
    return score_generic(logits, labels, heads, mean, streams=streams, block_size=block_size)


def test_streams_by_hand():
    """Classes named by the streams: 0 0 0 0, then 1 1 2 1, then 2 1 2 2; the truth is 0 1 2 2.

    Thrice the mean: (3, 1, 2), (2, 4, 0), (4, 0, 5), (1, 5, 3), so the fused head says 0 1 2 1.
    Rows are accuracy, many (class 0, 1 image), medium (class 1, 1 image), few (class 2, 2 images).
    """
    metrics = generic_metrics(score(), SHOTS)
    expected = {
        "generic": (3 / 4, 1, 1, 1 / 2),
        "generic/first": (1 / 4, 1, 0, 0),
        "generic/second": (2 / 4, 0, 1, 1 / 2),
        "generic/third": (3 / 4, 0, 1, 1),
    }
    for start, values in expected.items():
        assert tuple(metrics[f"{start}/{word}"] for word in WORDS) == values
    confusion = [[[1, 0, 0], [1, 0, 0], [2, 0, 0]],
                 [[0, 1, 0], [0, 1, 0], [0, 1, 1]],
                 [[0, 0, 1], [0, 1, 0], [0, 0, 2]]]  # fmt: skip
    assert score().stream_confusion.tolist() == confusion
    assert score().stream_confusion.dtype == np.int64


def test_scoring_streams_changes_no_other_count():
    heads = {"main": identity, "other": torch.neg}
    found, plain = score(heads=heads), score(heads=heads, streams=())
    assert plain.stream_confusion.shape == (0, 3, 3)
    for field in dataclasses.fields(GenericScores):
        if not field.name.startswith("stream"):
            assert np.array_equal(getattr(found, field.name), getattr(plain, field.name))


def test_they_are_the_primary_heads_streams():
    """The other head has all signs turned: its streams would be wrong everywhere."""
    alone = generic_metrics(score(), SHOTS)
    both = generic_metrics(score(heads={"main": identity, "other": torch.neg}), SHOTS)
    assert {name: both[name] for name in alone} == alone
    assert set(both) - set(alone) == {f"generic/other/{word}" for word in (*WORDS, "balanced")}


def test_shards_add_up_and_others_do_not():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(90, 3, 3, generator=generator)
    labels = torch.randint(0, 3, (90,), generator=generator)
    whole = score(logits, labels, block_size=30)
    parts = [score(logits[cut], labels[cut], block_size=30) for cut in (slice(60), slice(60, 90))]
    np.testing.assert_array_equal((parts[0] + parts[1]).stream_confusion, whole.stream_confusion)
    with pytest.raises(FedltError, match="streams"):
        parts[0] + score(logits, labels, streams=("a", "b", "c"), block_size=30)


def test_a_head_and_a_stream_of_one_name_are_refused():
    with pytest.raises(FedltError, match="'second' is the name of a generic head and of a stream"):
        score(heads={"main": identity, "second": identity})


class Tokens(nn.Module):
    """A backbone of a user's own with three streams."""

    num_features, num_streams = 4, 3

    def __init__(self, **_):
        super().__init__()
        self.map = nn.Linear(64, 12)

    def forward(self, x):
        return self.map(x[:, 0].flatten(1)).unflatten(1, (3, 4))


class OneStream(nn.Module):
    num_features, num_streams = 4, 1


def test_streams_without_names_are_numbered_and_a_single_one_has_none():
    assert Model(Tokens(), 3).stream_names == ("stream_1", "stream_2", "stream_3")
    assert Model(OneStream(), 3).stream_names == ()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "b"), "the backbone has 3 streams, the names are a, b"),
        (("a", "b", "a"), "stream name 'a' must be an identifier of its own"),
        (("a", "b", "c/d"), "stream name 'c/d' must be an identifier"),
    ],
)
def test_wrong_names_are_refused(names, words):
    with pytest.raises(FedltError, match=words):
        Model(Tokens(), 3).name_streams(*names)


def test_names_do_not_outlive_their_streams():
    """A strategy may replace the backbone that the plugin's build has seen."""
    model = Model(Tokens(), 3)
    model.name_streams(*NAMES)
    model.backbone = OneStream()
    with pytest.raises(FedltError, match="the backbone has 1 streams"):
        _ = model.stream_names


@pytest.mark.parametrize(
    ("lambdas", "names"),
    [
        ((-0.5, 1.0, 2.5), MDCS),
        ((2.5, -0.5, 1.0), ("few_expert", "many_expert", "medium_expert")),
        ((0.0, 2.0), ("many_expert", "few_expert")),
        ((1.0, 1.0, 1.0), ("expert_1", "expert_2", "expert_3")),
        ((0.0, 0.5, 1.5, 2.0), ("expert_1", "expert_2", "expert_3", "expert_4")),
    ],
)
def test_experts_are_named_by_their_exponents(lab, lambdas, names):
    """The smallest exponent leans to frequent classes, the largest to rare ones."""
    federation = lab.federation(client={"name": "mdcs", "lambdas": list(lambdas)})
    assert federation.view.build_model().stream_names == names


@dataclasses.dataclass(frozen=True)
class Named(CrossEntropy):
    """Names a stream as the default strategy names its head."""

    def build(self, model):
        model.backbone = Tokens()
        model.name_streams("cls", "head", "dist")


def test_a_run_with_such_names_is_refused_before_it_writes(lab):
    config = lab.fresh(client=f"{__file__}:Named")
    from fedlt.simulate import run

    with pytest.raises(FedltError, match="'head' is the name of a generic head and of a stream"):
        run(config)
    assert not lab.output.exists()


def counted(lab, outcome, changes):
    """Count accuracy and groups of every stream of the last checkpoint, one image at a time."""
    federation = lab.federation(**changes)
    model, tensors = federation.view.build_model(), outcome.checkpoint.tensors
    for group, key in (("shared", "broadcast"), ("fixed", "fixed")):
        model.load(tensors.get(key, {}), model.names(group))
    data, strategy = federation.observer.data, federation.view.strategy
    head = next(iter(strategy.generic(model, tensors["broadcast"]).values()))
    scale = [torch.tensor(value, dtype=torch.float32) for value in (data.mean, data.std)]
    with torch.no_grad():
        images = normalize(torch.from_numpy(np.array(data.eval_images)), *scale)
        logits = head(model.eval().features(images)).numpy()  # (N, S, C)
    groups = {"accuracy": range(data.num_classes), **outcome.result["shots"]}
    del groups["scheme"]
    found = {}
    for number, own in enumerate(np.moveaxis(logits, 1, 0)):
        for word, classes in groups.items():
            rows = [n for n, label in enumerate(data.eval_labels) if label in classes]
            right = sum(own[n].argmax() == data.eval_labels[n] for n in rows)
            found[number, word] = right / len(rows) if rows else None
    return found


SERIAL = {"name": "serial"}
DIGITS = {"dataset": "digits", "imbalance_factor": 5, "options": {}}
TOKENS = {  # CLS alone learns, so that the tokens differ
    "client": {"name": "deit_lt", "width": 16, "depth": 1, "heads": 2, "strong": "none",
               "mixup": 0.0, "cutmix": 0.0, "teacher": "none", "alpha": 0.0},
    "strategy": "centralised",
    "data": DIGITS,
    "local": {"optimizer": "adamw", "lr": 1e-2, "momentum": 0.0, "batch_size": 32},
}  # fmt: skip
CASES = {
    "mdcs": ({"client": "mdcs"}, MDCS, SERIAL),
    "mdcs-stacked": ({"client": "mdcs"}, MDCS, {"name": "stacked"}),
    "deit_lt": (TOKENS, ("cls", "dist"), SERIAL),
    "fedloge_experts": (
        {"client": "mdcs", "strategy": "fedloge_experts", "model": {"width": 8}, "data": DIGITS,
         "local": {"epochs": 5}},
        MDCS,
        SERIAL,
    ),
    "a backbone of the user's own": (
        {"model": {"name": f"{__file__}:Tokens"}}, ("stream_1", "stream_2", "stream_3"), SERIAL,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=WITH_TIMM if name == "deit_lt" else ()) for name in CASES]
)
def test_every_stream_of_a_run_against_an_independent_scorer(lab, case):
    changes, names, engine = CASES[case]
    changes = {"evaluate": {"batch_size": 7}, **changes, "rounds": 2}
    outcome = lab.run(**changes, engine=engine)
    row, expected = outcome.rows[-1], counted(lab, outcome, changes)
    assert outcome.result["streams"] == list(names)
    assert len(expected) == 4 * len(names)
    for (number, word), value in expected.items():
        assert row[f"generic/{names[number]}/{word}"] == value
    own = [tuple(row[f"generic/{name}/{word}"] for word in WORDS) for name in names]
    assert len(set(own)) > 1  # they do differ


def test_the_same_numbers_are_cut_again_without_training(lab):
    """fedloge_experts has another head, too: its streams are not scored."""
    outcome = lab.run(
        strategy="fedloge_experts", client="mdcs", model={"width": 8},
        evaluate={"selected_round": 2},
    )  # fmt: skip
    again = rescore(outcome.directory, Cut())
    names = [name for name in outcome.rows[-1] if name.startswith("generic/")]
    assert {name.split("/")[1] for name in names if name.count("/") == 2} == {*MDCS, "sse_c"}
    for moment in ("final", "last_k", "selected", "best_on_test"):
        assert {n: again[moment][n] for n in names if n in outcome.result[moment]} == {
            n: v for n, v in outcome.result[moment].items() if n in names
        }
    lines = (outcome.directory.path / "rounds.jsonl").read_text().splitlines()
    stored = [json.loads(line) for line in lines]
    for row in stored:
        path = outcome.directory.evaluations / f"round_{row['round']}.npz"
        cut = generic_metrics(load_evaluation(path).generic, ShotGroups.from_json(again["shots"]))
        assert {name: row[name] for name in cut} == cut
    few = rescore(outcome.directory, Cut(shots="0/1/2,3"))["final"]
    last = load_evaluation(outcome.directory.evaluations / "round_3.npz").generic
    hits = [last.stream_confusion[2, c, c] for c in (2, 3)]
    assert few["generic/few_expert/few"] == sum(hits) / 20


@pytest.mark.ray
def test_ray_counts_the_same(reference, lab):
    """Shards of the test set on two workers, five blocks of images each."""
    changes = {"client": "mdcs", "rounds": 1, "evaluate": {"batch_size": 4}}
    ray = lab.run(**changes, engine={"name": "ray", "workers": 2})
    serial = reference(**changes)
    assert ray.bits == serial.bits
    assert "generic/few_expert/few" in ray.rows[-1]
    path = "evaluations/round_1.npz"
    found, expected = (load_evaluation(one.directory.path / path) for one in (ray, serial))
    np.testing.assert_array_equal(found.generic.stream_confusion, expected.generic.stream_confusion)


def test_an_archive_of_other_streams_is_refused(reference, tmp_path):
    run = reference(client="mdcs", rounds=1, evaluate={"batch_size": 4})
    whole = load_evaluation(run.directory.evaluations / "round_1.npz")
    cut = dataclasses.replace(whole.generic, stream_confusion=whole.generic.stream_confusion[:2])
    path = tmp_path / "round_1.npz"
    save_evaluation(path, dataclasses.replace(whole, generic=cut))
    with pytest.raises(FedltError, match="not a saved evaluation"):
        load_evaluation(path)


def test_a_method_without_a_generic_model_has_no_streams_to_score(lab):
    row = lab.run(strategy="local_only", client="mdcs", rounds=1).rows[-1]
    assert not [name for name in row if "expert" in name]
