"""The view ``own``: clients by nature, scored on test images of their own."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.cli import main
from fedlt.config import load_config
from fedlt.data import prepare_data
from fedlt.data.shots import shot_groups
from fedlt.errors import FedltError
from fedlt.evaluation.cutting import personal_metrics
from fedlt.evaluation.headline import mass_note
from fedlt.evaluation.local_test import local_test
from fedlt.evaluation.scores import PersonalScores
from fedlt.runs.directory import RunDirectory
from fedlt.runs.evaluations import load_evaluation
from fedlt.runs.rescoring import Cut, rescore
from fedlt.simulate import run

CLINICS = """
import numpy as np
from fedlt.data import dataset_from_arrays

def load(only=None, test=True):
    draw = np.random.default_rng(5)
    labels = np.repeat(np.arange(4), [40, 30, 20, 10])
    images = draw.integers(0, 200, (100, 6, 6), dtype=np.uint8)
    images[:, 0, :4] = 255 * np.eye(4, dtype=np.uint8)[labels]
    users = draw.choice(["a", "b", "c", "d"], 100, p=[0.4, 0.3, 0.27, 0.03])
    tested = np.arange(60) % 4
    shown = draw.integers(0, 255, (60, 6, 6), dtype=np.uint8)
    own = draw.choice(["a", "b", "d", "elsewhere"], 60)
    own[tested == 3] = "a"
    kept = np.full(60, True) if only is None else own == only
    return dataset_from_arrays(
        "clinics", images, labels, shown[kept], tested[kept], long_tailed=True,
        train_clients=users, test_clients=own[kept] if test else None,
    )
"""
YAML = """
name: {name}
rounds: 2
data: {{dataset: "clinics.py:load", options: {options}}}
partition: {{scheme: natural, min_images: 5}}
model: {{name: mlp, width: 8}}
local: {{batch_size: 8}}
strategy: {strategy}
evaluate: {{local_test: {view}, batch_size: 7, shots: rank}}
engine: {{name: serial}}
"""


@pytest.fixture(scope="module")
def clinics(tmp_path_factory):
    """Return a function that gives the finished run of a strategy, run once."""
    folder = tmp_path_factory.mktemp("clinics")
    (folder / "clinics.py").write_text(CLINICS)
    known = {}

    def config(strategy="fedavg", view="own", overrides=(), **options):
        name = "-".join([strategy, view, *map(str, options.values())]).lower()
        text = YAML.format(name=name, options=options, strategy=strategy, view=view)
        (folder / f"{name}.yaml").write_text(text)
        return load_config(folder / f"{name}.yaml", [f"output={folder / 'runs'}", *overrides])

    def finished(*args, **options):
        made = config(*args, **options)
        if made.name not in known:
            run(made)
            known[made.name] = RunDirectory.of(made)
        return known[made.name]

    finished.config = config
    return finished


def data_of(config):
    return prepare_data(config.data, config.partition, seed=1)


def test_weights_and_recalls_by_hand():
    """Client 0: n = (3, 1, 0), own images (2, 0, 5): class 0 alone weighs, a quarter is lost.
    Client 1: n = (1, 1, 2), own (4, 4, 0): halves, a half is lost. Client 2 has own images of
    another class, client 3 none: both are left out. With hits (1, 0, 5) and (4, 1, 0):
    A = 1/2 and (1 + 1/4) / 2 = 5/8. The generic model's hits are (2, 0, 0) and (0, 4, 0):
    G = 1 and 1/2. The largest tested classes are 0 and 0: 1 and 1/2.
    """
    counts = [[3, 1, 0], [1, 1, 2], [0, 4, 0], [2, 2, 2]]
    own = np.array([[2, 0, 5], [4, 4, 0], [3, 0, 0], [0, 0, 0]])
    view = local_test(counts, [20, 20, 20], scheme="own", own_counts=own)
    assert view.weights.tolist() == [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 0], [0, 0, 0]]
    hits = np.array([[1, 0, 5], [4, 1, 0], [3, 0, 0], [0, 0, 0]])
    base = np.array([[2, 0, 0], [0, 4, 0], [0, 0, 0], [0, 0, 0]])
    scores = PersonalScores(
        ("main",), np.arange(4), hits[:, None], hits[:, None], base, base, own=True
    )
    found = personal_metrics(
        scores, view, shot_groups([30, 20, 10], scheme="rank"), participated=[True] * 4
    )
    assert found["personal/accuracy"] == (1 / 2 + 5 / 8) / 2
    assert found["personal/generic"] == (1 + 1 / 2) / 2
    assert found["personal/majority_guess"] == (1 + 1 / 2) / 2
    assert found["personal/mass_lost"] == (1 / 4 + 1 / 2) / 2
    assert found["personal/balanced"] == (1 / 2 + 5 / 8) / 2
    assert (found["personal/clients"], found["personal/excluded"]) == (2, 2)
    said = mass_note([{"local_test": "own", "last_k": found}], "last_k")
    assert said.startswith(
        "personal view: 37.5 % of a client's images, in the mean, are of classes"
    )
    assert said.endswith("2 clients without own test images of own classes left out")


@pytest.mark.parametrize("strategy", ["fedavg", "ditto", "fedrep", "local_only"])
def test_hits_are_those_of_a_test_set_of_the_clients_own_images(clinics, strategy):
    """Clients 0 and 1 are a and b. With a test set of a's images alone every view is a's."""
    found = clinics(strategy).evaluation(2)
    assert found.own_counts.sum(axis=1).tolist()[2] == 0  # c has no test image
    for cid, name in enumerate("ab"):
        alone = clinics(strategy, "exact", only=name).evaluation(2)
        assert found.own_counts[cid].tolist() == alone.test_counts.tolist()
        for key in ("hits", "hits_held", "generic_hits", "generic_hits_held"):
            mine, theirs = getattr(found.personal, key)[cid], getattr(alone.personal, key)[cid]
            assert (mine == theirs).all(), key
    assert not found.personal.hits[2].any()


def test_a_rescored_run_has_its_own_numbers_and_no_others(clinics):
    directory = clinics("ditto")
    again, result = rescore(directory, Cut()), directory.result()
    for name, value in result["final"].items():
        if name.startswith("personal/"):
            assert again["final"][name] == value, name
    assert result["local_test"] == again["local_test"] == "own"
    assert result["final"]["personal/excluded"] == 1
    with pytest.raises(FedltError, match="exact needs other scores; on each client's own test"):
        rescore(directory, Cut(local_test="exact"))
    exact = clinics("ditto", "exact", only="a")
    with pytest.raises(FedltError, match="own needs test images that belong to clients"):
        rescore(exact, Cut(local_test="own"))


def test_a_saved_evaluation_of_other_clients_is_damaged(clinics, tmp_path):
    source = clinics("fedavg").evaluations
    for name in ("round_2.npz", "clients.npz"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    assert load_evaluation(tmp_path / "round_2.npz").own_counts is not None
    with np.load(tmp_path / "clients.npz") as file:
        arrays = dict(file)
    arrays["own_counts"] = arrays["own_counts"][1:]
    np.savez(tmp_path / "clients.npz", **arrays)
    with pytest.raises(FedltError, match="not a saved evaluation, or a damaged one"):
        load_evaluation(tmp_path / "round_2.npz")


def test_users_become_clients_and_test_images_follow(clinics):
    data = data_of(clinics.config())
    assert data.client_names == ("a", "b", "c")
    assert data.partition.num_dropped > 0
    assert data.class_counts.sum() == 100 - data.partition.num_dropped
    assert (data.eval_clients[np.arange(60) % 4 == 3] == 0).all()
    assert set(data.eval_clients.tolist()) == {-1, 0, 1}  # d is dropped, elsewhere is nobody
    merged = data_of(clinics.config(overrides=["partition.merge=2"]))
    assert merged.partition.num_clients == 2
    assert "".join(merged.client_names).replace(" + ", "") in ("abc", "acb", "bca", "cab", "bac")
    owner = [name.split(" + ") for name in merged.client_names]
    mine = next(cid for cid, names in enumerate(owner) if "a" in names)
    assert (merged.eval_clients[np.arange(60) % 4 == 3] == mine).all()


def test_tune_holds_out_images_that_keep_their_owner(clinics):
    whole = data_of(clinics.config(view="exact"))
    tuned = data_of(clinics.config(overrides=["data.split=tune", "partition.min_images=1"]))
    assert tuned.eval_clients.min() >= 0
    assert len(tuned.eval_clients) == 4 + 3 + 2 + 1
    counts = np.bincount(tuned.eval_clients, minlength=4) + tuned.client_sizes
    assert counts.tolist()[:3] == whole.client_sizes.tolist()


def test_what_has_no_own_test_images_is_refused(clinics, capsys):
    folder = RunDirectory.of(clinics.config()).path.parents[2]
    file = folder / "fedavg-own.yaml"
    said = {
        "data.options.test=false": "own needs partition.scheme: natural and client numbers for the",
        "partition={scheme: iid, num_clients: 3}": "which are not known of 'clinics' here",
        "data.options.only=elsewhere": "own: no image of the test set belongs to a client",
    }
    for override, words in said.items():
        assert main(["run", str(file), override, f"output={folder}", "name=refused"]) == 2
        assert words in capsys.readouterr().err
    assert not (folder / "refused").exists()
