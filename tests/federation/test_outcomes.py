"""The outcome of a round: whose update is used, and that nothing changes before it is adopted."""

from __future__ import annotations

import math

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedlt.federation.faults import RoundFaults
from fedlt.flower.replies import pack_reply
from fedlt.flower.server_half import make_server_half
from fedlt.strategy import Update

PLAN = RoundFaults((0, 2, 3, 4), corrupt=(2, 3))


def answers(server, values):
    """Return an answer a client: every floating tensor filled with a value, weight cid + 1."""
    replies = []
    for cid, value in values.items():
        broadcast = server.state.broadcast
        sums = {n: torch.full_like(t, value) for n, t in broadcast.items() if t.is_floating_point()}
        update = Update(sums, cid + 1.0, {"loss": 2.0, "examples": 1.0, "steps": 3.0}, {})
        message = Message(RecordDict({"config": ConfigRecord({})}), cid, "train")
        replies.append(pack_reply(update, cid, reply_to=message, norm=value))
    return replies


@pytest.mark.usefixtures("identity")
def test_an_outcome_by_hand(lab):
    """Client 2 sends nan, client 3 is over the bound of 5: the mean is (1 * 1 + 5 * 4) / 6."""
    faults = {"detect": {"max_norm": 5.0}}
    server = make_server_half(lab.federation(batchnorm="local", faults=faults).view)
    sent = answers(server, {0: 1.0, 2: math.nan, 4: 4.0})
    huge = answers(server, {3: 50.0})[0]
    del huge.content["arrays"]  # as a worker leaves it, which knows the bound
    outcome = server.aggregate(1, PLAN, [*sent[:2], huge, sent[2]])
    assert outcome.answered == (0, 2, 3, 4)
    assert (outcome.used, outcome.nonfinite, outcome.huge) == ((0, 4), (2,), (3,))
    assert (outcome.weight, outcome.excluded) == (6.0, [2, 3])
    assert outcome.notes() == [
        "round 1: client 2: update not finite, left out",
        "round 1: client 3: update too large, left out",
    ]
    weight = outcome.state.broadcast["heads.head.weight"]
    torch.testing.assert_close(weight, torch.full_like(weight, 21 / 6))


@pytest.mark.usefixtures("identity")
def test_a_round_in_which_nobody_answers_takes_no_step(lab):
    server = make_server_half(lab.federation().view)
    outcome = server.aggregate(1, RoundFaults((), lost=(1,)), [])
    assert (outcome.answered, outcome.used, outcome.state.round) == ((), (), 1)
    assert outcome.notes() == ["round 1: no update to use, no step taken"]
    for name, tensor in server.state.broadcast.items():
        assert torch.equal(outcome.state.broadcast[name], tensor)


def raw(server):
    """Return all that a checkpoint holds of a server, as bytes."""
    saved = server.snapshot()
    groups = {g: {n: t.numpy().tobytes() for n, t in ts.items()} for g, ts in saved.tensors.items()}
    return groups, saved.values, saved.heard.tolist(), saved.trained.tolist(), saved.norms


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("strategy", ["fedavg", "flwr.serverapp.strategy:FedAdam"])
def test_nothing_changes_before_an_outcome_is_adopted(lab, strategy):
    """The same answers twice give the same outcome; FedAdam's moments are part of what is kept."""
    faults = {"detect": {"max_ratio": 9.0}}
    server = make_server_half(lab.federation(strategy=strategy, faults=faults).view)
    server.cohort(1, type("Nodes", (), {"get_node_ids": lambda self: range(5)})())
    before = raw(server)
    sent = answers(server, {0: 1.0, 4: 4.0})
    first, second = (server.aggregate(1, PLAN, sent) for _ in range(2))
    assert raw(server) == before
    for name, tensor in first.state.broadcast.items():
        assert torch.equal(tensor, second.state.broadcast[name])
    server.adopt(first)
    after = raw(server)
    assert after != before
    assert (after[2], after[4]) == ([True, False, False, False, True], [1.0])
    server.adopt(second)
    assert raw(server) == after
