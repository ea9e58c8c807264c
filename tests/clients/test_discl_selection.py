"""DisCL: which images are hard, what an epoch of them holds, and when a pool adds nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pools import make_pool

from clients import DisCL
from fedlt.data.augment import normalize
from fedlt.errors import FedltError
from fedlt.federation import prepare_parties
from fedlt.flower.server_half import make_server_half
from fedlt.generators.generator import find_pool_maker
from fedlt.generators.pool import load_pool, save_pool
from fedlt.generators.selection import confidences
from fedlt.generators.tail import HARD, SOURCES, TailData
from fedlt.progress import Progress
from fedlt.worker.worker import Worker


class Told(Progress):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


@pytest.fixture
def trained(reference):
    """The directory of a finished run of the tiny federation: the classifier."""
    return str(reference(client="cross_entropy").directory.path)


@pytest.fixture
def probabilities(lab, reference, trained):
    """The true classes' probabilities (N,), by the run's own model and plain operations."""
    federation = lab.federation(client="cross_entropy")
    model, data = federation.view.build_model(), federation.observer.data
    tensors = reference(client="cross_entropy").checkpoint.tensors
    model.load({**tensors.get("fixed", {}), **tensors["broadcast"]})
    model.eval()
    images = torch.from_numpy(np.array(data.train_images)).float() / 255
    mean, std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (data.mean, data.std))
    with torch.no_grad():
        shares = model((images - mean) / std)[:, 0].softmax(dim=-1).numpy()
    return shares[np.arange(len(shares)), data.train_labels]


def options_of(lab, tmp_path, trained, *, below=0.5, copies=4, **options):
    """A client by confidence, with a pool of images of every class."""
    path = tmp_path / f"pool-{copies}.npz"
    if not path.exists():
        make_pool(lab.config(), path, classes=4, copies=copies)
    chosen = {"select": "low_confidence", "classifier_path": trained, "confidence_below": below}
    return {"name": "discl", "pool_path": str(path), **chosen, **options}


def client_of(lab, client, cid, *, round_=1):
    federation = lab.federation(client=client, rounds=13)
    state = make_server_half(federation.view).state
    return Worker(federation.shares).client(
        cid, round_, state.broadcast, fixed=state.fixed, personal={}
    )


def hardest(lab, client, **more):
    """The client with the most hard images."""
    found = [client_of(lab, client, cid, **more) for cid in range(5)]
    return max(found, key=lambda c: int(c.material[HARD][c.data.indices].sum()))


# ---- which images


def test_the_confidence_is_that_of_the_run_named(lab, trained, probabilities):
    preparation = lab.federation(client="cross_entropy").observer.preparation()
    before = torch.get_rng_state()
    found = confidences(preparation, trained)
    assert torch.equal(torch.get_rng_state(), before)
    assert found == pytest.approx(probabilities, abs=1e-5)


def test_hard_are_the_images_below(lab, tmp_path, trained, probabilities):
    below = float(np.median(probabilities))
    federation = lab.federation(client=options_of(lab, tmp_path, trained, below=below))
    hard = federation.shares.material[HARD]
    assert hard.tolist() == (probabilities < below).tolist()
    assert 0.4 < hard.mean() < 0.6
    labels = federation.observer.data.train_labels
    assert any(0 < hard[labels == c].mean() < 1 for c in range(4))  # not whole classes


def test_a_generator_gets_each_clients_hard_images(lab, tmp_path, trained, monkeypatch):
    """And no others; `fedlt generate` asks for the same."""
    asked = []
    pool = load_pool(options_of(lab, tmp_path, trained)["pool_path"])

    def filled(generator, request):
        asked.append([own.tolist() for own in request.sources])
        return replace(pool, scores=np.ones(len(pool)))

    monkeypatch.setattr("fedlt.generators.plugin.filled_pool", filled)
    client = options_of(lab, tmp_path, trained)
    del client["pool_path"]
    federation = lab.federation(client=client)
    hard, partition = federation.shares.material[HARD], federation.observer.data.partition
    expected = [own[hard[own]].tolist() for own in map(partition.clients.__getitem__, range(5))]
    assert sum(map(len, expected)) == hard.sum() > 0
    find_pool_maker(federation.view.plugin)(federation.observer.preparation())
    assert asked == [expected, expected]


# ---- an epoch


def kinds_of(client):
    """How often each real image, and which synthetic images, are in the client's next epoch."""
    own = TailData.of(client, 0.17)
    data = own.data
    table = normalize(data.images, data.mean, data.std).flatten(1)
    rows = []
    for batch in client.plugin.batches(client, 0):
        for image, label in zip(batch.images.flatten(1), batch.labels, strict=True):
            apart = (table - image).abs().amax(1) + 10.0 * (data.labels != label)
            rows.append(int(apart.argmin()))
    counts = np.bincount(rows, minlength=len(table))
    return own, counts[: own.num_real], counts[own.num_real :]


def test_an_epoch_holds_every_real_image_and_up_to_three_synthetic_ones_a_hard_one(
    lab, tmp_path, trained, probabilities
):
    below = float(np.median(probabilities))
    client = hardest(lab, options_of(lab, tmp_path, trained, below=below))
    own, real, synthetic = kinds_of(client)
    hard = int(own.is_hard.sum())
    assert hard > 0
    assert real.tolist() == [1] * own.num_real
    assert synthetic.sum() == 3 * hard
    assert {int(s) for s in own.stages[torch.from_numpy(synthetic > 0)]} == {0}  # the first level
    sources = client.data.indices[own.is_hard]
    assert set(own.sources.tolist()) == set(sources.tolist())


@pytest.mark.parametrize(
    ("curriculum", "round_", "times"),
    [("oversample", 1, 4), ("oversample", 13, 1), ("diverse_to_specific", 13, 1)],
)
def test_without_synthetic_images(lab, tmp_path, trained, probabilities, curriculum, round_, times):
    """The control repeats hard images while the curriculum lasts; after it epochs are plain."""
    options = {"below": float(np.median(probabilities)), "curriculum": curriculum}
    client = hardest(lab, options_of(lab, tmp_path, trained, **options), round_=round_)
    own, real, synthetic = kinds_of(client)
    assert synthetic.sum() == 0
    assert real[own.is_hard].tolist() == [times] * int(own.is_hard.sum())
    assert real[~own.is_hard].tolist() == [1] * int((~own.is_hard).sum())


def test_the_own_factors_give_the_mean_over_the_real_images(lab, tmp_path, trained, probabilities):
    """Whatever fills the epoch, as for FedLoGe's personal head: kinds are (class, hard or not)."""
    below = float(np.median(probabilities))
    client = hardest(lab, options_of(lab, tmp_path, trained, below=below))
    values = torch.rand(4, generator=torch.Generator().manual_seed(0))
    total = count = 0.0
    for batch in client.plugin.batches(client, 0):
        total += float((batch.extra["own"] * values[batch.labels]).sum())
        count += len(batch.labels)
    real = values[client.data.labels[client.data.indices]]
    assert total / count == pytest.approx(float(real.mean()), rel=1e-5)


@pytest.mark.parametrize("curriculum", ["all_levels", "adaptive", "specific_to_diverse"])
def test_every_curriculum_trains(lab, tmp_path, trained, curriculum):
    client = options_of(lab, tmp_path, trained, below=0.9, curriculum=curriculum)
    outcome = lab.run(client=client, strategy="fedloge", rounds=1)
    assert outcome.result["excluded"] == []


def test_nothing_hard_is_the_plain_plugin_bit_for_bit(lab, tmp_path, trained, reference):
    """No probability is below 0."""
    outcome = lab.run(client=options_of(lab, tmp_path, trained, below=0.0))
    assert outcome.bits == reference(client="cross_entropy").bits


# ---- what cannot be


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"select": "low_confidence"},
            "classifier_path: select low_confidence, and no other, needs",
        ),
        ({"classifier_path": "/x"}, "classifier_path: select low_confidence, and no other, needs"),
        ({"select": "hardest"}, "client.select is 'hardest'; expected"),
        (
            {"select": "low_confidence", "classifier_path": "/nowhere"},
            "classifier_path: no run with a checkpoint lies in '/nowhere'",
        ),
    ],
)
def test_wrong_settings_are_one_line(lab, options, reason):
    with pytest.raises(FedltError, match=reason) as error:
        lab.federation(client={"name": "discl", **lab.pool(), **options})
    assert "\n" not in str(error.value)


def test_another_model_is_refused(lab, reference, tmp_path, trained):
    client = options_of(lab, tmp_path, trained)
    with pytest.raises(
        FedltError, match=r"classifier_path: the model of .* does not fit the class"
    ):
        lab.federation(client=client, model={"width": 3})
    cosine = {**client, "classifier_path": str(reference(client="ldam_drw").directory.path)}
    with pytest.raises(FedltError, match=r"does not fit the classifier, .* a linear head"):
        lab.federation(client=cosine)


def test_no_hard_image_and_no_pool_is_one_line(lab, trained):
    chosen = {"select": "low_confidence", "classifier_path": trained, "confidence_below": 0.0}
    with pytest.raises(FedltError, match=r"image of low confidence.*raise client.confidence_below"):
        lab.federation(client={"name": "discl", **chosen})


# ---- pools that add nothing


def told(lab, client, **changes):
    """The lines about the pool that a run of this client begins with."""
    config = lab.config(client=client, **changes)
    progress = Told()
    base = lab.federation(client=client, **changes)
    prepare_parties(config, base.view.strategy, base.view.plugin, progress=progress)
    return [line for line in progress.lines if line.startswith("pool:")]


@pytest.mark.parametrize("curriculum", ["adaptive", "diverse_to_specific"])
def test_a_pool_of_classes_that_are_not_rare_is_said(lab, tmp_path, reference, curriculum):
    """Balanced data: no class is below 0.17 of the mean. The run is that of cross-entropy."""
    balanced = {"data": {"imbalance_factor": 1}, "partition": {"scheme": "iid"}}
    path = tmp_path / "pool.npz"
    pool = make_pool(lab.config(**balanced), path, classes=4)
    client = {"name": "discl", "pool_path": str(path), "curriculum": curriculum}
    (line,) = told(lab, client, **balanced)
    assert line == (
        f"pool: its {len(pool)} images add nothing: no image is of a class that is rare for its "
        "client (client.tail_below 0.17)"
    )
    outcome = lab.run(client=client, **balanced)
    assert outcome.bits == reference(client="cross_entropy", **balanced).bits


def test_a_pool_that_is_used_in_part_is_counted(lab, tmp_path):
    """Of all four classes' images those whose class is rare for the client that holds the source.

    Counted here from the partition: a class's share of the client's images below 0.8 of a quarter.
    """
    path = tmp_path / "pool.npz"
    pool = make_pool(lab.config(), path, classes=4)
    client = {"name": "discl", "pool_path": str(path), "tail_below": 0.8}
    federation = lab.federation(client=client)
    data = federation.observer.data
    used = 0
    for cid in range(federation.view.num_clients):
        own = np.asarray(data.partition.clients[cid])
        labels = data.train_labels[own]
        shares = np.bincount(labels, minlength=4) / max(len(labels), 1)
        rare = own[shares[labels] < 0.8 / 4]
        used += int(np.isin(federation.shares.material[SOURCES], rare).sum())
    assert 0 < used < len(pool)
    assert told(lab, client) == [f"pool: {used} of its {len(pool)} images are trained on"]


def test_a_pool_of_another_tail_is_said(lab, tmp_path):
    """Images of the largest class alone, which is rare for nobody."""
    path = tmp_path / "pool.npz"
    pool = make_pool(lab.config(partition={"scheme": "iid"}), path, classes=4)
    largest = pool.labels == np.bincount(pool.labels).argmax()
    save_pool(pool.take(largest), path)
    client = {"name": "discl", "pool_path": str(path), "tail_below": 0.8}
    (line,) = told(lab, client, partition={"scheme": "iid"})
    assert "add nothing: none is made from one of the" in line


def test_a_pool_that_is_held_out_whole_is_said(lab, tmp_path):
    """Adaptive, one image a level and source: all of them measure progress, none trains."""
    path = tmp_path / "pool.npz"
    make_pool(lab.config(), path, copies=1)
    client = {"name": "discl", "pool_path": str(path), "tail_below": 0.8}
    (line,) = told(lab, {**client, "curriculum": "adaptive"})
    assert "add nothing" in line
    assert line.endswith("or all of them are held out to measure progress")
    assert not any("nothing" in line for line in told(lab, client))


def test_the_defaults_are_the_papers_long_tail():
    assert (DisCL().select, DisCL().confidence_below) == ("rare", 0.5)
