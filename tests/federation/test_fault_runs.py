"""Whole runs with faults: their effect on the model, and what is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedlt.errors import FedltError
from fedlt.federation.faults import Faults
from fedlt.federation.steps import corrupted, step_norm
from fedlt.flower.adapter import NoUsableUpdateError
from fedlt.flower.client_app import make_client_app
from fedlt.flower.records import array_record
from fedlt.flower.replies import metric_lists
from fedlt.flower.server_half import make_server_half
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run
from fedlt.worker.worker import Worker

STOCK = "flwr.serverapp.strategy:FedAdam"


def tensors(outcome):
    """Return the bits of a run without its rows and counts."""
    return {name: value for name, value in outcome.bits.items() if name not in ("rows", "meta")}


def initial(lab, **changes):
    return make_server_half(lab.federation(**changes).view).state.broadcast


def trained(lab, cids, **changes):
    """Return each client's update of round 1, trained alone, and its number of images."""
    federation = lab.federation(**changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    sizes, updates = federation.observer.data.client_counts.sum(axis=1), {}
    for cid in cids:
        client = worker.client(
            cid, 1, server.state.broadcast, fixed=server.state.fixed, personal={}
        )
        updates[cid] = {n: t.double().clone() for n, t in worker.train(client).sums.items()}
    return updates, sizes


# ---- lost


def test_lost_clients_weigh_nothing(lab):
    """The mean of those that answer, weighted by their images, each trained alone."""
    changes = {"clients_per_round": None, "rounds": 1, "faults": {"lost": {"rate": 0.5}}}
    outcome = lab.run(**changes)
    lost = [cid for _, cid, kind in outcome.result["faults"]["log"] if kind == "lost"]
    assert 0 < len(lost) < 5
    rest = [cid for cid in range(5) if cid not in lost]
    updates, sizes = trained(lab, rest)
    found = outcome.checkpoint.tensors["broadcast"]
    for name in ("backbone.layers.0.weight", "heads.head.weight"):
        mean = sum(updates[c][name] * int(sizes[c]) for c in rest) / int(sizes[rest].sum())
        torch.testing.assert_close(found[name], mean.float(), rtol=1e-5, atol=1e-7)
    (row,) = outcome.rows
    assert row["train/clients"] == row["personal/participated"] == len(rest)
    assert (row["train/lost"], row["personal/never"]) == (len(lost), len(lost))


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", STOCK])
def test_rounds_in_which_everybody_is_lost_pass_without_a_step(lab, strategy):
    outcome = lab.run(strategy=strategy, faults={"lost": {"rate": 1.0}})
    assert outcome.result["status"] == "finished"
    faults = outcome.result["faults"]
    assert (faults["lost"], faults["passed_rounds"]) == (9, [1, 2, 3])
    assert [row["train/passed"] for row in outcome.rows] == [1, 2, 3]
    assert [row["train/clients"] for row in outcome.rows] == [0, 0, 0]
    assert len({row["generic/accuracy"] for row in outcome.rows}) == 1
    after = outcome.checkpoint.tensors["broadcast"]
    for name, tensor in initial(lab, strategy=strategy).items():
        assert torch.equal(after[name], tensor)


@pytest.mark.parametrize("name", ["Krum", "FedMedian", "FedTrimmedAvg"])
def test_robust_strategies_of_flower_take_what_is_left(lab, name):
    faults = {"lost": {"rate": 0.5}, "corrupt": {"share": 0.2}}
    outcome = lab.run(strategy=f"flwr.serverapp.strategy:{name}", faults=faults, rounds=4)
    assert outcome.result["faults"]["lost"] > 0
    assert outcome.result["status"] == "finished"


def test_a_secure_sum_of_one_is_given_up(lab):
    """Cohorts of three of which two are lost in some rounds: such a round passes."""
    changes = {
        "client": "balanced_softmax",
        "prior": {"use": "global", "source": "secure_sum"},
        "rounds": 12,
        "evaluate": {"every": 50},
    }
    outcome = lab.run(**changes, faults={"lost": {"rate": 0.5}})
    lost = np.bincount([r for r, _, _ in outcome.result["faults"]["log"]], minlength=13)[1:]
    assert outcome.result["faults"]["passed_rounds"] == (np.flatnonzero(lost >= 2) + 1).tolist()
    assert (lost == 2).any()


# ---- stragglers


def test_a_part_of_the_work_is_its_first_steps(lab):
    """3 of 7 steps asked of a phase of two epochs, against a loop of our own over the batches."""
    federation = lab.federation(local={"batch_size": 8, "epochs": 2}, model={"norm": "group"})
    server, worker = make_server_half(federation.view), Worker(federation.shares)

    def load():
        return worker.client(2, 1, server.state.broadcast, fixed={}, personal={})

    client = load()
    batches = [batch for epoch in (0, 1) for batch in client.plugin.batches(client, epoch)]
    steps = 3 * len(batches) // 7
    assert 0 < steps < len(batches)
    optimizer = torch.optim.SGD(client.model.parameters(), lr=0.1)
    for batch in batches[:steps]:
        optimizer.zero_grad()
        federation.view.strategy.objective(client, batch).backward()
        optimizer.step()
    expected = {name: tensor.clone() for name, tensor in client.model.state().items()}
    client = load()
    client.local = client.local.model_copy(update={"momentum": 0.0})
    client.work = (3, 7)
    metrics = client.train(federation.view.strategy.objective)
    assert metrics["steps"] == steps
    for name, tensor in client.model.state().items():
        torch.testing.assert_close(tensor, expected[name])


def test_partial_clients_do_the_stated_steps_in_a_run(lab):
    changes = {"clients_per_round": None, "rounds": 1, "strategy": "fedloge"}
    straggler = {"deadline": 0.7, "spread": 0.0}
    outcome = lab.run(**changes, faults={"straggler": straggler})
    federation = lab.federation(**changes, faults={"straggler": straggler})
    full = Faults.of(federation.observer).full_steps.tolist()
    in_time = int(0.7 * float(np.median(full)))
    done = outcome.checkpoint.tensors["participants"]["steps"]
    assert done.tolist() == [min(steps, in_time) for steps in full]
    late = [cid for cid, steps in enumerate(full) if steps > in_time]
    assert outcome.result["faults"]["log"] == [[1, cid, "partial"] for cid in late]
    dropped = lab.run(**changes, faults={"straggler": {**straggler, "action": "drop"}})
    assert dropped.result["faults"]["log"] == [[1, cid, "dropped"] for cid in late]
    assert dropped.rows[0]["train/clients"] == 5 - len(late)


def test_a_deadline_that_everybody_meets_changes_nothing(lab, reference):
    easy = lab.run(faults={"straggler": {"deadline": 1000.0, "spread": 0.1}})
    assert tensors(easy) == tensors(reference())


# ---- late


def test_late_clients_are_never_sampled_early_and_use_the_generic_model(lab):
    changes = {"strategy": "fedloge", "clients_per_round": None, "rounds": 4}
    faults = {"late": {"share": 0.4, "first": 3}}
    outcome = lab.run(**changes, faults=faults)
    assert [row["train/clients"] for row in outcome.rows] == [3, 3, 5, 5]
    assert [row["train/late"] for row in outcome.rows] == [2, 2, 0, 0]
    assert [row["personal/never"] for row in outcome.rows] == [2, 2, 0, 0]
    assert outcome.rows[1]["personal/clients"] == 5


def test_nobody_there_yet_passes(lab):
    outcome = lab.run(faults={"late": {"share": 1.0, "first": 2}})
    assert outcome.result["faults"]["passed_rounds"] == [1]
    assert [row["train/clients"] for row in outcome.rows] == [0, 3, 3]


def test_late_is_refused_for_stock_strategies(lab):
    config = lab.fresh(strategy=STOCK, faults={"late": {"share": 0.5}})
    with pytest.raises(FedltError, match=r"faults\.late: FedAdam samples its clients itself"):
        run(config)
    assert not lab.output.exists()


# ---- corrupt, huge


@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize("strategy", ["fedavg", STOCK])
def test_updates_that_are_not_finite_are_left_out_and_named(lab, kind, strategy):
    changes = {"clients_per_round": None, "rounds": 2, "strategy": strategy}
    outcome = lab.run(**changes, faults={"corrupt": {"share": 0.4, "kind": kind}})
    excluded = outcome.result["excluded"]
    assert [round_ for round_, _ in excluded] == [1, 1, 2, 2]
    assert excluded[:2] == [[1, cid] for _, cid in excluded[2:]]
    faults = outcome.result["faults"]
    assert (faults["corrupt"], faults["nonfinite"], faults["huge"]) == (4, 4, 0)
    assert [row["train/clients"] for row in outcome.rows] == [3, 3]
    after = outcome.checkpoint.tensors["broadcast"]
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())


@pytest.mark.parametrize("strategy", ["fedavg", "flwr.serverapp.strategy:FedAvg"])
@pytest.mark.parametrize("detect", [None, 1000.0])
def test_what_is_left_out_weighs_nothing(lab, strategy, detect):
    """The mean of the others, BatchNorm's statistics as well, by hand."""
    changes = {"clients_per_round": None, "rounds": 1, "strategy": strategy}
    kind = "nan" if detect is None else "scale"
    corrupt = {"share": 0.4, "kind": kind, "factor": 1e7}
    outcome = lab.run(**changes, faults={"corrupt": corrupt, "detect": {"max_norm": detect}})
    bad = {cid for _, cid in outcome.result["excluded"]}
    rest = [cid for cid in range(5) if cid not in bad]
    assert len(rest) == 3
    updates, sizes = trained(lab, rest, strategy=strategy)
    found = outcome.checkpoint.tensors["broadcast"]
    variance = next(name for name in found if name.endswith("running_var"))
    for name in ("backbone.layers.0.weight", "heads.head.weight", variance):
        mean = sum(updates[c][name] * int(sizes[c]) for c in rest) / int(sizes[rest].sum())
        torch.testing.assert_close(found[name], mean.float(), rtol=1e-5, atol=1e-6)


def test_everybody_injected_with_nan_passes_but_a_diverged_run_stops(lab):
    faults = {"corrupt": {"share": 1.0}}
    outcome = lab.run(faults=faults, rounds=2)
    assert outcome.result["faults"]["passed_rounds"] == [1, 2]
    with pytest.raises(NoUsableUpdateError, match="round 1"):
        run(lab.fresh(local={"lr": 1e38}, faults={"corrupt": {"share": 0.2}}))


def test_chunks_of_several_clients_leave_huge_updates_out(lab):
    """Chunks of two: a rule that accepts nobody but the honest equals NaN from the same clients."""
    changes = {
        "partition": {"num_clients": 70, "min_samples": 1},
        "clients_per_round": None,
        "rounds": 2,
        "evaluate": {"every": 50},
        "local": {"batch_size": 8},
    }
    corrupt = {"share": 0.2, "kind": "scale", "factor": 1e6}
    huge = lab.run(**changes, faults={"corrupt": corrupt, "detect": {"max_norm": 100.0}})
    nan = lab.run(**changes, faults={"corrupt": {"share": 0.2, "kind": "nan"}})
    assert len(huge.result["excluded"]) == 2 * 14
    assert huge.result["excluded"] == nan.result["excluded"]
    assert tensors(huge) == tensors(nan)


def test_an_undetected_step_times_a_factor_by_hand(lab):
    """Mean of w + f_k (w_k - w) weighted by images; buffers as they were trained."""
    changes = {"clients_per_round": None, "rounds": 1}
    corrupt = {"share": 0.4, "kind": "scale", "factor": -3.0}
    outcome = lab.run(**changes, faults={"corrupt": corrupt})
    bad = {cid for _, cid, _ in outcome.result["faults"]["log"]}
    assert len(bad) == 2
    updates, sizes = trained(lab, range(5))
    start, found = initial(lab), outcome.checkpoint.tensors["broadcast"]
    variance = next(name for name in start if name.endswith("running_var"))
    for name in ("backbone.layers.0.weight", "heads.head.bias", variance):
        mean = 0.0
        for cid, update in updates.items():
            factor = -3.0 if cid in bad and "running" not in name else 1.0
            mean = mean + (start[name] + factor * (update[name] - start[name])) * int(sizes[cid])
        mean = (mean / int(sizes.sum())).float()
        torch.testing.assert_close(found[name], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize(
    ("settings", "stored", "used"),
    [
        ({}, True, True),
        ({"max-norm": 1e6}, True, True),
        ({"stale": True}, False, True),
        ({"corrupt": "nan", "factor": 1.0}, False, False),
        ({"max-norm": 1e-6}, False, False),
        ({"corrupt": "scale", "factor": 1e9, "max-norm": 1e6}, False, False),
    ],
)
def test_what_a_client_does_with_what_it_is_told(lab, settings, stored, used):
    """On any grid: the node itself keeps its old state when its update is left out."""
    federation = lab.federation(strategy="fedloge")
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    content = RecordDict(
        {
            "arrays": array_record(server.state.broadcast),
            "fixed": server.fixed,
            "config": ConfigRecord({"server-round": 1, **settings}),
        }
    )
    context = Context(1, 1, {"partition-id": 2}, RecordDict(), {})
    reply = make_client_app(lambda: worker)(Message(content, 2, "train"), context)
    assert ("personal" in context.state) == stored
    assert ("arrays" in reply.content) == used
    assert ("norm" in metric_lists(reply)) == ("max-norm" in settings)


def test_step_norm_by_hand():
    """3-4-12-13: over the names asked for and in both only."""
    start = {"a": torch.ones(2, 2), "b": torch.zeros(1), "c": torch.zeros(1)}
    sums = {"a": torch.tensor([[4.0, 1.0], [1.0, 5.0]]), "b": torch.tensor([12.0])}
    assert step_norm(sums, start, ["a", "b", "c", "d"]) == 13.0
    assert step_norm(sums, start, ["a"]) == 5.0
    wrong = corrupted(sums, start, ["a"], kind="scale", factor=2.0)
    assert wrong["a"].tolist() == [[7.0, 1.0], [1.0, 9.0]]
    assert wrong["b"] is sums["b"]
    assert corrupted(sums, start, ["b"], kind="inf", factor=1.0)["b"].tolist() == [float("inf")]
    assert sums["a"].tolist() == [[4.0, 1.0], [1.0, 5.0]]  # not written


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", STOCK])
def test_ratio_rule_catches_scaled_updates_from_the_second_round_on(lab, strategy):
    """Round 1 is judged by its own median; it holds huge updates, so it passes without a step."""
    changes = {"clients_per_round": None, "rounds": 3, "strategy": strategy}
    corrupt = {"share": 0.4, "kind": "scale", "factor": 1000.0}
    outcome = lab.run(**changes, faults={"corrupt": corrupt, "detect": {"max_ratio": 20.0}})
    log = outcome.result["faults"]["log"]
    injected = [(r, cid) for r, cid, kind in log if kind == "corrupt"]
    assert [(r, cid) for r, cid, kind in log if kind == "huge"] == injected
    assert outcome.result["faults"]["passed_rounds"] == [1]
    assert [row["train/clients"] for row in outcome.rows] == [0, 3, 3]
    assert len(outcome.checkpoint.meta["norms"]) == 3


def test_the_rule_leaves_an_honest_run_alone(lab, reference):
    outcome = lab.run(faults={"detect": {"max_ratio": 50.0, "max_norm": 1e6}})
    assert tensors(outcome) == tensors(reference())
    assert outcome.result["faults"]["huge"] == 0


# ---- stale


def test_a_stale_store_keeps_the_first_state(lab):
    """Rate 1: nothing is stored once a first state is; the shared part goes on without a trace."""
    local = {"batch_size": 2, "lr": 0.01}
    changes = {"strategy": "fedloge", "clients_per_round": None, "local": local}
    straggler = {"deadline": 0.8, "spread": 0.0, "jitter": 0.5}  # other steps in every round
    stale = {"stale": {"rate": 1.0}, "straggler": straggler}
    first = lab.run(**changes, rounds=1, faults=stale)
    third = lab.run(**changes, rounds=3, faults=stale)
    assert third.result["faults"]["stale"] == 10
    clean = lab.run(**changes, rounds=3, faults={"straggler": straggler})
    for cid in range(5):
        name = f"personal/{cid}/heads.local.weight"
        assert third.bits[name] == first.bits[name]
        assert third.bits[name] != clean.bits[name]
    steps = [run.checkpoint.tensors["participants"]["steps"] for run in (third, first, clean)]
    assert torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[0], steps[2])
    shared = "broadcast/heads.auxiliary.weight"  # does not depend on local heads
    assert third.bits[shared] == clean.bits[shared]


# ---- what is written


def test_result_rows_and_notes(lab):
    class Notes:
        def __init__(self):
            self.lines = []

        def start(self, total_rounds, done=0): ...
        def advance(self, round, text=""): ...
        def note(self, line):
            self.lines.append(line)

        def stop(self): ...

    notes = Notes()
    corrupt = {"share": 0.4, "kind": "scale", "factor": 1e5}
    config = lab.fresh(
        clients_per_round=None,
        rounds=2,
        faults={"corrupt": corrupt, "detect": {"max_ratio": 20.0}},
    )
    result = run(config, progress=notes)
    huge = [cid for r, cid, kind in result["faults"]["log"] if (r, kind) == (1, "huge")]
    assert [line for line in notes.lines if line.startswith("round 1:")] == [
        *(f"round 1: client {cid}: update too large, left out" for cid in huge),
        "round 1: no update to use, no step taken",
    ]
    last = RunDirectory.of(config).rounds()[-1]
    assert {kind: last[f"train/{kind}"] for kind in ("corrupt", "huge", "passed", "late")} == {
        "corrupt": 4,
        "huge": 4,
        "passed": 1,
        "late": 0,
    }


def test_without_the_section_nothing_is_written(reference):
    outcome = reference()
    assert outcome.result["faults"] is None
    assert not [name for row in outcome.rows for name in row if name in ("train/lost", "norm")]
