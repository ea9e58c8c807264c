"""Idle clients: nothing is made, kept, sent or written for them."""

from __future__ import annotations

import pytest

from fedlt.engines.engine import Engine
from fedlt.evaluation.local_test import evaluated_clients
from fedlt.federation import evaluator
from fedlt.flower.server_half import make_server_half
from fedlt.runs.evaluations import evaluation_path, load_evaluation

CROWD = 50_000


def crowded(clients):
    """The same 50,000 images, dealt to few or to many clients."""
    return {
        "strategy": "fedloge",
        "data": {
            "imbalance_factor": 1,
            "options": {"num_classes": 4, "train_per_class": CROWD // 4, "test_per_class": 10},
        },
        "partition": {"scheme": "iid", "num_clients": clients, "min_samples": 1},
        "local": {"batch_size": 500},
        "evaluate": {"clients": 4},
    }


@pytest.fixture(scope="module")
def crowd(lab_factory):
    """A run of 3 rounds with 3 of 50,000 clients, and the cids whose contexts were made."""
    lab, made, make = lab_factory("crowd"), [], Engine.context
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "context", lambda self, cid: made.append(cid) or make(self, cid))
        return lab.run(**crowded(CROWD)), made


def test_contexts_and_states_are_those_of_the_cohorts(lab, crowd):
    outcome, made = crowd
    server = make_server_half(lab.federation(**crowded(CROWD)).view)
    cohorts = [server.sample(round_, range(CROWD)) for round_ in (1, 2, 3)]
    assert made == [cid for cohort in cohorts for cid in cohort]
    assert set(outcome.personal) == set(made)
    assert server.sample(2, list(range(CROWD))) == cohorts[1]
    assert [row["personal/participated"] for row in outcome.rows] == [3, 6, 9]


def test_only_the_chosen_clients_are_scored(crowd):
    """The evaluation's file names them: a draw of the seed, the same in every round."""
    outcome, _ = crowd
    chosen = evaluated_clients(CROWD, 4, seed=1).tolist()
    for round_ in (1, 2, 3):
        evaluation = load_evaluation(evaluation_path(outcome.directory.path, round_))
        assert evaluation.personal.cids.tolist() == chosen
    assert [row["personal/clients"] for row in outcome.rows] == [4, 4, 4]


def test_checkpoints_do_not_grow_with_idle_clients(lab, crowd):
    def size(outcome):
        files = (outcome.directory.checkpoints).rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())

    assert size(crowd[0]) == pytest.approx(size(lab.run(**crowded(10))), rel=0.1)


def test_chunks_of_clients_give_the_same_scores(lab, reference, monkeypatch):
    """Five clients in requests of two, and of one by the size of their states."""
    asked = []
    make = evaluator._request

    def watch(*arguments):
        request = make(*arguments)
        asked.append([client.cid for client in request.clients])
        return request

    monkeypatch.setattr(evaluator, "_request", watch)
    changes = {"strategy": "fedloge", "evaluate": {"batch_size": 20}}
    whole = lab.run(**changes)
    assert asked[:2] == [[0, 1, 2, 3, 4]] * 2  # 40 test images in two pieces
    monkeypatch.setattr(evaluator, "CHUNK_CLIENTS", 2)
    asked.clear()
    assert lab.run(**changes).bits == whole.bits
    assert asked[:6] == [[0, 1], [0, 1], [2, 3], [2, 3], [4], [4]]
    monkeypatch.setattr(evaluator, "CHUNK_BYTES", 1)
    asked.clear()
    assert lab.run(**changes).bits == whole.bits
    assert asked[:10] == [[cid] for cid in range(5) for _ in range(2)]
