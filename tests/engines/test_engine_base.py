"""Engines: chunks, sums, order, commits, contexts, and what happens to bad updates."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from by_hand import play_round
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedlt.engines import ENGINES, engine_class
from fedlt.engines.engine import Engine, Job, chunk_size, run_job
from fedlt.engines.serial import SerialEngine
from fedlt.errors import FedltError
from fedlt.flower.records import array_record, tensors_of
from fedlt.flower.replies import metric_lists, pack_reply
from fedlt.flower.server_half import make_server_half
from fedlt.machine.lazy import Lazy
from fedlt.strategy import Update
from fedlt.worker.worker import Worker


def echo(message: Message, context: Context) -> Message:
    """A client app of numbers: client k answers w = (k + 1, -1) with weight k + 1, and counts."""
    cid = int(context.node_config["partition-id"])
    tensor = torch.tensor([cid + 1.0, -1.0])
    if cid in message.content.config_records["config"].get("bad", []):
        tensor = tensor / 0
    calls = tensors_of(context.state["personal"])["calls"] if context.state else torch.zeros(1)
    context.state["personal"] = array_record({"calls": calls + 1})
    update = Update({"w": tensor}, cid + 1.0, {"loss": 2.0 * cid}, {})
    return pack_reply(update, cid, reply_to=message)


class EchoEngine(Engine):
    """Runs :func:`echo` and remembers the jobs."""

    def run_jobs(self, jobs):
        self.jobs = list(jobs)
        for job in self.jobs:
            yield run_job(echo, job)

    def run_scores(self, requests):
        return []


def messages(cids, *, bad=()):
    config = {"bad": list(bad)} if bad else {}
    return [Message(RecordDict({"config": ConfigRecord(config)}), cid, "train") for cid in cids]


@pytest.fixture(scope="module")
def crowd(lab_factory):
    """A federation of 200 clients with one image or more each."""
    lab = lab_factory("crowd")
    return lab.federation(
        partition={"num_clients": 200, "scheme": "iid"},
        data={"imbalance_factor": 1, "options": {"num_classes": 4, "train_per_class": 100}},
    )


@pytest.fixture
def engine(crowd):
    with EchoEngine(crowd) as engine:
        yield engine


@pytest.mark.parametrize(
    ("cohort", "size"),
    [(1, 1), (2, 1), (63, 1), (64, 1), (65, 2), (128, 2), (129, 3), (1000, 16), (1025, 17)],
)
def test_chunk_size(cohort, size):
    """One client a chunk up to 64, then ceil(n / 64), so there are never more than 64 chunks."""
    assert chunk_size(cohort) == size
    assert -(-cohort // size) <= 64


@pytest.mark.parametrize("cohort", [1, 5, 64, 65, 150])
def test_jobs_are_contiguous_chunks_of_the_cohort(engine, cohort):
    cids = list(range(7, 7 + cohort))
    engine.map_reduce(messages(cids))
    pieces = [[message.metadata.dst_node_id for message in job.messages] for job in engine.jobs]
    assert [cid for piece in pieces for cid in piece] == cids
    assert {len(piece) for piece in pieces[:-1]} <= {chunk_size(cohort)}
    assert all(job.reduce for job in engine.jobs)


@pytest.mark.parametrize("cohort", [1, 5, 64, 65, 150])
def test_map_reduce_is_the_weighted_sum(engine, cohort):
    """sum (k + 1)(k + 1) and sum (k + 1)(-1): integers, so exact in float32."""
    cids = list(range(3, 3 + cohort))
    (reply,) = engine.map_reduce(messages(cids))
    ones = [cid + 1 for cid in cids]
    total = tensors_of(reply.content["sums"])["w"].tolist()
    assert total == [float(sum(n * n for n in ones)), -float(sum(ones))]
    lists = metric_lists(reply)
    assert lists["cid"] == cids
    assert lists["weight"] == ones
    assert lists["loss"] == [2.0 * cid for cid in cids]


def test_bad_updates_are_left_out_of_every_chunk_and_named(engine):
    cids, bad = list(range(100)), [0, 1, 4, 50, 99]  # chunks of two: 0 and 1 fill a chunk
    (reply,) = engine.map_reduce(messages(cids, bad=bad))
    good = [cid + 1 for cid in cids if cid not in bad]
    total = tensors_of(reply.content["sums"])["w"].tolist()
    assert total == [float(sum(n * n for n in good)), -float(sum(good))]
    lists = metric_lists(reply)
    assert [c for c, ok in zip(lists["cid"], lists["finite"], strict=True) if not ok] == bad


def test_send_and_receive_gives_one_reply_a_message_in_order(engine):
    cids = [9, 3, 150, 4, 77]
    replies = engine.send_and_receive(messages(cids))
    assert [reply.metadata.src_node_id for reply in replies] == cids
    values = [tensors_of(reply.content["arrays"])["w"].tolist() for reply in replies]
    assert values == [[cid + 1.0, -1.0] for cid in cids]  # plain, not times the weight
    assert [reply.content["metrics"]["num-examples"] for reply in replies] == [10, 4, 151, 5, 78]


def test_replies_answer_their_messages(engine):
    sent = messages([5, 6])
    for message in sent:
        message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
    replies = engine.send_and_receive(sent)
    assert [reply.metadata.reply_to_message_id for reply in replies] == ["m5", "m6"]


def test_push_and_pull(engine):
    first = engine.push_messages(messages([1, 2]))
    second = engine.push_messages(messages([3]))
    ids = [*first, *second]
    assert len(set(ids)) == 3
    pulled = engine.pull_messages([ids[2], ids[0]])
    assert [reply.metadata.src_node_id for reply in pulled] == [3, 1]
    assert engine.pull_messages([ids[2], ids[0]]) == []  # pulled once
    third = engine.push_messages(messages([4]))
    assert [r.metadata.src_node_id for r in engine.pull_messages(third)] == [4]
    assert [r.metadata.src_node_id for r in engine.pull_messages([ids[1]])] == [2]


def calls(engine):
    found = {}
    for cid, state in engine.states().items():
        found[cid] = float(state["calls"])
    return found


@pytest.mark.parametrize("cids", [[2, 5, 7], list(range(100))])
def test_commit_keeps_the_named_clients_only(engine, cids):
    engine.map_reduce(messages(cids))
    assert engine.states() == {}
    engine.commit([2, 7])
    assert calls(engine) == {2: 1.0, 7: 1.0}
    engine.map_reduce(messages(cids))
    engine.commit([2, 5])
    assert calls(engine) == {2: 2.0, 5: 1.0, 7: 1.0}  # what 5 saw first was never committed


def test_what_is_not_committed_leaves_no_trace(engine):
    engine.map_reduce(messages([2]))
    engine.map_reduce(messages([3]))
    engine.commit([2, 3])
    assert calls(engine) == {3: 1.0}
    engine.map_reduce(messages([3]))
    engine.map_reduce(messages([3]))
    engine.commit([3])
    assert calls(engine) == {3: 2.0}
    engine.commit([3])
    assert calls(engine) == {3: 2.0}


def test_contexts_are_copies(engine):
    engine.map_reduce(messages([2]))
    engine.commit([2])
    context = engine.context(2)
    assert context.node_config == {"partition-id": 2, "num-partitions": 200}
    assert context.node_id == 2
    context.state["personal"] = array_record({"calls": torch.tensor([9.0])})
    context.state["more"] = ConfigRecord({})
    assert calls(engine) == {2: 1.0}
    assert list(engine.context(2).state) == ["personal"]


def test_restore_replaces_the_states(engine, tmp_path):
    engine.states().spill_to(tmp_path, 1)
    engine.states().stage(4, {"calls": torch.tensor([41.0])})
    engine.commit([4])
    snapshot = engine.states().flush()
    engine.map_reduce(messages([2]))
    engine.commit([2])
    engine.states().restore(snapshot, round=1)
    assert list(engine.states()) == [4]
    engine.map_reduce(messages([2, 4]))
    engine.commit([2, 4])
    assert calls(engine) == {2: 1.0, 4: 42.0}


def test_contexts_are_made_when_they_are_asked_for():
    """A pickled job holds them all, for it leaves the process; another holds none."""
    made = []

    def make(cid):
        made.append(cid)
        return Context(1, cid, {}, RecordDict(), {})

    job = Job(messages([5, 6, 7]), Lazy(make, [5, 6, 7]), reduce=True)
    assert (len(job.contexts), made) == (3, [])
    assert job.contexts[1].node_id == 6
    assert [context.node_id for context in job.contexts[1:]] == [6, 7]
    made.clear()
    copy = pickle.loads(pickle.dumps(job.contexts))
    assert made == [5, 6, 7]
    assert [context.node_id for context in copy] == [5, 6, 7]
    assert isinstance(copy, list)


def test_a_job_run_twice_gives_the_same(engine):
    """What a lost and repeated Ray task would do; the contexts come from the engine each time."""
    answers = []
    for _ in range(2):
        job = Job(messages([2, 3]), [engine.context(2), engine.context(3)], reduce=True)
        (reply,) = run_job(echo, job).replies
        answers.append(tensors_of(reply.content["sums"])["w"].tolist())
    assert answers[0] == answers[1] == [25.0, -7.0]


def test_node_ids_are_client_ids(engine):
    assert list(engine.get_node_ids()) == list(range(200))


@pytest.mark.parametrize(("name", "nearest"), [("sreial", "'serial'"), ("Ray", "'ray'")])
def test_unknown_engine_is_refused_in_one_line(name, nearest):
    with pytest.raises(FedltError, match=f"engine.name: no engine '{name}'") as caught:
        engine_class(name)
    line = str(caught.value)
    assert "\n" not in line
    assert nearest in line
    assert all(engine in line for engine in ENGINES)


def test_engine_that_is_none_is_refused():
    with pytest.raises(FedltError, match="is not a subclass of"):
        engine_class("fedlt.worker.worker:Worker")
    with pytest.raises(FedltError, match="has no 'SerialEngin'; nearest: 'SerialEngine'"):
        engine_class("fedlt.engines.serial:SerialEngin")


def test_every_engine_of_the_table_loads():
    assert all(issubclass(engine_class(name), Engine) for name in ENGINES)


# ---- the real client app against a naive sum


@pytest.mark.parametrize("clients", [5, 70])
def test_serial_sums_equal_a_naive_weighted_sum(lab, clients):
    """The naive sum trains every client by hand, in float64, and divides by the images."""
    federation = lab.federation(
        strategy="fedloge",
        clients_per_round=None,
        partition={"num_clients": clients, "scheme": "iid", "min_samples": 1},
    )
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    naive = dict.fromkeys(server.state.broadcast, 0.0)
    sizes = federation.observer.data.client_counts.sum(axis=1)
    for cid in range(clients):
        client = worker.client(
            cid, 1, server.state.broadcast, fixed=server.state.fixed, personal={}
        )
        for name, tensor in worker.train(client).sums.items():
            naive[name] = naive[name] + tensor.double() * int(sizes[cid])
    with SerialEngine(federation) as engine:
        outcome = play_round(server, engine)
    integers = set(worker.model.integer_names())
    for name, tensor in server.state.broadcast.items():
        if name not in integers:
            mean = (naive[name] / int(sizes.sum())).float()
            torch.testing.assert_close(tensor, mean, rtol=1e-5, atol=1e-6)
    assert outcome.answered == tuple(range(clients))
    assert np.array_equal(server.heard, np.ones(clients, bool))
