"""What every strategy, client plugin and engine promises, over one table of all of them."""

from __future__ import annotations

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from built_in import BUILT_IN
from flwr.app import ConfigRecord, Message, RecordDict
from tiers import in_tiers, once_each, slow_but

from fedlt.check import Bench, Subject, checks_of, raw, run_checks
from fedlt.check.tiny_runs import Finished
from fedlt.engines.engine import run_job
from fedlt.engines.serial import SerialEngine
from fedlt.federation import prepare_parties
from fedlt.federation.faults import RoundFaults
from fedlt.flower.records import tensors_of
from fedlt.flower.replies import pack_reply, sum_replies
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.strategy import Total, Update
from strategies import STRATEGIES

STOCK = "flwr.serverapp.strategy:FedAdam"
STOCK_MEAN = "flwr.serverapp.strategy:FedAvg"
METHODS = {**BUILT_IN, "FedAdam": {"strategy": {"name": STOCK, "eta": 0.05}}}
SETTINGS = {
    **METHODS,
    "group-norm": {"model": {"norm": "group"}},
    "adamw": {"local": {"optimizer": "adamw", "lr": 0.01}},
    "knobs": {"local": {"steps": 5, "clip": 0.5, "momentum": 0.5, "nesterov": True}},
    "pooled": {"strategy": "fedloge", "batchnorm": "pooled"},
    "fedavg-local": {"batchnorm": "local"},
    "fedloge-local": {"strategy": "fedloge", "batchnorm": "local"},
    "refresh": {"strategy": "fedloge", "personal": {"refresh": {"epochs": 1}}},
    "refresh-all": {"personal": {"refresh": {"scope": "all", "epochs": 1}}},
    "FedAdam-pooled": {"strategy": STOCK, "batchnorm": "pooled"},
    "secure-sum": {
        "client": "balanced_softmax",
        "prior": {"use": "mix", "source": "secure_sum", "gamma": 0.3},
    },
    "FedAdam-local": {"strategy": STOCK, "batchnorm": "local"},
    "faults": {
        "strategy": "fedloge",
        "faults": {
            "lost": {"rate": 0.3},
            "straggler": {"deadline": 0.9},
            "stale": {"rate": 0.5},
        },
    },
}
settings = in_tiers(SETTINGS, METHODS)
ONE_OF_A_KIND = ("fedavg", "fedloge", "ditto", "fedavg_ft", "creff", "fedproto", "FedAdam")
FAST_RESUMED = ("fedavg", "fedloge", "FedAdam", "faults")
RESUMED = (*ONE_OF_A_KIND, "scaffold", "fedloge-local", "refresh", "FedAdam-pooled", "faults")


# ---- engines: the same bits


@once_each(SETTINGS)
def test_every_setting_runs_and_moves_every_trained_tensor(reference, changes):
    outcome = reference(**changes)
    assert outcome.result["status"] == "finished"
    assert outcome.result["excluded"] == []
    assert [row["round"] for row in outcome.rows] == [1, 2, 3]
    # MDCS has the most: three experts, each at most 60 + log(classes) for cosines times 30.
    assert all(0 < row["train/loss"] < 190 for row in outcome.rows)
    model = make_server_half(prepared(outcome).view).model  # as it was before the first round
    after = outcome.checkpoint.tensors["broadcast"]
    still = {n for n in model.names("shared") if torch.equal(model.state()[n], after[n])}
    assert still == set(model.integer_names("shared"))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values())


def prepared(outcome):
    config = outcome.directory.config()
    return prepare_parties(config, resolve_strategy(config), resolve_client(config))


# A pairwise cover: every kind of method meets every policy, prior and number of workers,
# and those meet each other. By workers, so that those of one run are there for the next one.
POLICIES = {
    "average": {"batchnorm": "average"},
    "pooled": {"batchnorm": "pooled"},
    "local": {"batchnorm": "local"},
}
PRIORS = {
    "none": {},
    "own": {"client": "balanced_softmax"},
    "mix": {
        "client": "balanced_softmax",
        "prior": {"use": "mix", "source": "oracle", "gamma": 0.3},
    },
}
COVER = sorted(
    (
        (kind, policy, list(PRIORS)[(row + shift) % 3], 1 + (row + 2 * shift) % 3)
        for kind, shift in (("fedavg", 0), ("fedloge", 1), ("ditto", 2), ("FedAdam", 0))
        for row, policy in enumerate(POLICIES)
    ),
    key=lambda case: case[3],
)
ON_RAY = (
    "scaffold", "fedproto", "creff", "fedavg_ft", "fedavg+deit_lt", "fedloge_experts+mdcs",
    "secure-sum", "knobs",
)  # fmt: skip
FAST_ON_RAY = ("scaffold", "creff", "fedloge_experts+mdcs", "knobs")
# Every strategy, every plugin in FedAvg, and settings: Ray adds processes, whatever they compute.
RAY_METHODS = {
    name: changes
    for name, changes in SETTINGS.items()
    if name in (*ON_RAY, *STRATEGIES, "FedAdam", "refresh", "adamw") or name.startswith("fedavg+")
}


def test_the_cover_is_pairwise():
    """Every two values of two different columns meet in a row."""
    for first, second in itertools.combinations(range(4), 2):
        columns = [{row[column] for row in COVER} for column in (first, second)]
        met = {(row[first], row[second]) for row in COVER}
        assert met == set(itertools.product(*columns))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("kind", "policy", "prior", "workers"),
    [
        pytest.param(*case, marks=() if place % 6 == 0 else pytest.mark.slow)
        for place, case in enumerate(COVER)
    ],
)
def test_ray_gives_the_bits_of_serial(lab, reference, kind, policy, prior, workers):
    changes = {**METHODS[kind], **POLICIES[policy], **PRIORS[prior]}
    engine = {"name": "ray", "workers": workers}
    assert lab.run(**changes, engine=engine).bits == reference(**changes).bits


@pytest.mark.ray
@slow_but(FAST_ON_RAY, RAY_METHODS)
def test_ray_gives_the_bits_of_serial_for_methods(lab, reference, changes):
    engine = {"name": "ray", "workers": 2}
    assert lab.run(**changes, engine=engine).bits == reference(**changes).bits


SLEEPY = """
import time
from dataclasses import dataclass

from strategies import FedAvg


@dataclass(frozen=True)
class Sleepy(FedAvg):
    def local_update(self, client):
        update = super().local_update(client)
        time.sleep(0.25 * ((client.cid + self.turn * client.round) % 3))
        return update

    turn: int = 1
"""


@pytest.mark.ray
@pytest.mark.parametrize("turn", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_tasks_that_end_in_another_order_give_the_bits_of_serial(lab, reference, tmp_path, turn):
    """Which client sleeps longest changes from round to round, so answers overtake each other."""
    (tmp_path / "sleepy.py").write_text(SLEEPY, encoding="utf-8")
    strategy = {"name": f"{tmp_path}/sleepy.py:Sleepy", "turn": turn}
    run = lab.run(strategy=strategy, engine={"name": "ray", "workers": 2})
    assert run.bits == reference(strategy="fedavg").bits


def test_the_comparison_of_bits_can_fail(reference):
    assert reference().bits != reference(seed=2).bits
    assert reference().bits != reference(local={"lr": 0.1000001}).bits


# ---- resume


@slow_but(FAST_RESUMED, {name: SETTINGS[name] for name in RESUMED})
def test_a_round_that_is_trained_again_gives_the_same_bits(lab, reference, changes):
    """Checkpoints every 2nd round; stopped in round 3, so round 3 is trained and written again."""
    longer = {**changes, "rounds": 4}
    stopped = lab.stopped(3, **longer, checkpoint={"every": 2})
    assert lab.resume(stopped).bits == reference(**longer).bits


def test_resume_after_the_last_round_writes_the_result(lab, reference):
    stopped = lab.stopped(3)
    outcome = lab.resume(stopped)
    assert outcome.bits == reference().bits
    first, second = outcome.result["final"], reference().result["final"]
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_resume_before_the_first_checkpoint_starts_again(lab, reference):
    stopped = lab.stopped(2, checkpoint={"every": 50})
    assert lab.resume(stopped).bits == reference().bits


@pytest.mark.ray
@pytest.mark.parametrize("name", ["fedloge", pytest.param("FedAdam", marks=pytest.mark.slow)])
def test_serial_run_resumes_on_ray(lab, reference, name):
    stopped = lab.stopped(1, **METHODS[name])
    outcome = lab.resume(stopped, name="ray", workers=2)
    assert outcome.bits == reference(**METHODS[name]).bits


# ---- sums


def test_mean_of_identical_updates_is_the_update():
    generator = torch.Generator().manual_seed(0)
    update = {"w": torch.randn(50, generator=generator), "b": torch.randn(3, generator=generator)}
    weights = [3.0, 117.0, 40.0, 1.0]
    sums = {n: sum(weight * tensor for weight in weights) for n, tensor in update.items()}
    mean = Total(sums, sum(weights), (0, 1, 2, 3), 4).mean()
    for name, tensor in update.items():
        torch.testing.assert_close(mean[name], tensor, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "ditto", STOCK_MEAN])
@pytest.mark.parametrize("policy", POLICIES)
def test_identical_clients_give_the_clients_model(lab, strategy, policy):
    """Weights sum to one: a cohort of one update under several weights leaves that update.

    The kit's check of weights asks this of the parameters of every strategy; here are the running
    statistics, the policies that they follow, and the messages between.
    """
    bench = Bench(lab.federation(strategy=strategy, batchnorm=policy))
    server, update = bench.server, bench.task(1)
    expected = {name: tensor.clone() for name, tensor in update.sums.items()}
    answers = [
        pack_reply(
            Update(expected, weight, {"loss": 1.0, "examples": weight, "steps": 1.0}, {}),
            cid,
            reply_to=message(cid),
        )
        for cid, weight in ((0, 11.0), (2, 3.0), (4, 29.0))
    ]
    server.adopt(server.aggregate(1, RoundFaults((0, 2, 4)), answers))
    if policy == "pooled":  # the update holds var + mean^2
        for name in [name for name in expected if name.endswith("running_var")]:
            mean = expected[name.replace("running_var", "running_mean")]
            expected[name] = expected[name] - mean.square()
    for name, tensor in expected.items():
        found = server.state.broadcast[name]
        torch.testing.assert_close(found, tensor, rtol=2e-6, atol=1e-6)


@slow_but(ONE_OF_A_KIND, METHODS)
def test_the_sum_does_not_depend_on_which_client_answers_first(lab, reference, changes):
    """An engine that runs jobs backwards still yields them in cohort order: the same bits."""
    engine = {"name": f"{__file__}:BackwardsEngine"}
    assert lab.run(**changes, engine=engine).bits == reference(**changes).bits


class BackwardsEngine(SerialEngine):
    """Runs the last job first."""

    def run_jobs(self, jobs):
        yield from reversed([run_job(self._app, job) for job in reversed(jobs)])


@pytest.mark.usefixtures("identity")
def test_sums_of_replies_are_exact_for_small_integers():
    """2 * 3 + 5 * 7 + 4 * 11 = 85, whoever is added to whom first."""
    answers = [
        pack_reply(
            Update({"w": torch.full((2,), value)}, weight, {"loss": 1.0}, {}),
            cid,
            reply_to=message(cid),
        )
        for cid, (weight, value) in enumerate([(2.0, 3.0), (5.0, 7.0), (4.0, 11.0)])
    ]
    flat = sum_replies(answers)
    nested = sum_replies([sum_replies(answers[:2]), sum_replies(answers[2:])])
    for reply in (flat, nested):
        total = tensors_of(reply.content["sums"])["w"]
        assert total.tolist() == [85.0, 85.0]
        assert list(reply.content["metrics"]["weight"]) == [2.0, 5.0, 4.0]
    assert tensors_of(answers[0].content["arrays"])["w"].tolist() == [3.0, 3.0]  # not written


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("size", [1, 7, 2**16 + 3])
def test_sums_round_the_product_and_then_the_sum(size):
    """Twice, as two NumPy operations do: no fused multiply-add, wherever an entry lies."""
    generator = np.random.default_rng(1)
    weights = [3.3, 0.7, 11.1]
    values = [generator.standard_normal(size).astype(np.float32) for _ in weights]
    answers = [
        pack_reply(
            Update({"w": torch.from_numpy(value)}, weight, {}, {}), cid, reply_to=message(cid)
        )
        for cid, (weight, value) in enumerate(zip(weights, values, strict=True))
    ]
    expected = values[0] * np.float32(weights[0])
    for value, weight in zip(values[1:], weights[1:], strict=True):
        expected = expected + value * np.float32(weight)
    found = tensors_of(sum_replies(answers).content["sums"])["w"].numpy()
    assert found.tobytes() == expected.tobytes()


def message(cid):
    return Message(RecordDict({"config": ConfigRecord({})}), cid, "train")


# ---- the promises of the conformance kit


@settings
def test_a_setting_keeps_every_promise_of_the_kit(lab, reference, changes):
    """All checks of ``fedlt check``, beside a reference run that saw other global generators.

    The runs among them give its bits again: one that is resumed, and one in which every job,
    the last one first, has a worker made from a pickled federation. Nobody moves a generator.
    """
    finished = reference(**changes)
    subject = Subject(lab.config(**changes), section_of(changes))
    subject.reference = Finished(finished.result, finished.rows, finished.groups, finished.bits)
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    before = pickle.dumps((random.getstate(), np.random.get_state()))
    results = [*run_checks(subject)]
    assert not [str(result) for result in results if result.status in ("fail", "skip")]
    assert [result.name for result in results] == [*checks_of(subject.section)]
    assert pickle.dumps((random.getstate(), np.random.get_state())) == before


def section_of(changes):
    """Return what is under test: the plugin where the strategy is FedAvg and is tried itself."""
    is_fedavg = changes.get("strategy", "fedavg") == "fedavg"
    return "client" if is_fedavg and "client" in changes else "strategy"


@pytest.mark.parametrize("name", STRATEGIES)
def test_first_personal_states_are_drawn_by_client_and_seed_or_are_common(lab, name):
    """FedLoGe draws a head for each client; elsewhere all clients begin alike."""

    def first(cid, **changes):
        return raw(Bench(lab.federation(strategy=name, **changes)).client(cid).personal)

    base = first(1)
    others = [first(2), first(1, seed=2), first(1, rng_salt=1)]
    assert all(other.keys() == base.keys() for other in others)
    drawn = {tensor for tensor, value in base.items() if others[0][tensor] != value}
    assert drawn == ({f"heads.local.{part}" for part in ("weight", "bias")} if "fedloge" in name
                     else set())  # fmt: skip
    assert all(other[tensor] != base[tensor] for other in others for tensor in drawn)
