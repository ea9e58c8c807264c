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
from tiers import in_tiers, marks_of, once_each

from clients import CLIENTS
from fedlt.check import Bench, Subject, frozen, raw, run_check
from fedlt.engines.engine import run_job
from fedlt.engines.serial import SerialEngine
from fedlt.federation import prepare_parties
from fedlt.federation.faults import RoundFaults
from fedlt.flower.records import tensors_of
from fedlt.flower.replies import pack_reply, sum_replies
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.strategy import Strategy, Total, Update
from strategies import STRATEGIES

STOCK = "flwr.serverapp.strategy:FedAdam"
METHODS = {**BUILT_IN, "FedAdam": {"strategy": {"name": STOCK, "eta": 0.05}}}
SETTINGS = {
    **METHODS,
    "group-norm": {"model": {"norm": "group"}},
    "adamw": {"local": {"optimizer": "adamw", "lr": 0.01}},
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
methods = in_tiers(METHODS, METHODS)
settings = in_tiers(SETTINGS, METHODS)


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
# and those meet each other.
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
COVER = [
    (kind, policy, list(PRIORS)[(row + shift) % 3], 1 + (row + 2 * shift) % 3)
    for kind, shift in (("fedavg", 0), ("fedloge", 1), ("ditto", 2), ("FedAdam", 0))
    for row, policy in enumerate(POLICIES)
]
ON_RAY = (
    "scaffold", "fedproto", "creff", "fedavg_ft", "fedavg+deit_lt", "fedloge_experts+mdcs",
    "secure-sum",
)  # fmt: skip
RAY_METHODS = [
    pytest.param(
        name,
        id=name,
        marks=[*marks_of(name, {}), *([] if name in ON_RAY else [pytest.mark.slow])],
    )
    for name in [*METHODS, "refresh", "adamw", "secure-sum"]
]


def test_the_cover_is_pairwise():
    """Every two values of two different columns meet in a row."""
    for first, second in itertools.combinations(range(4), 2):
        columns = [{row[column] for row in COVER} for column in (first, second)]
        met = {(row[first], row[second]) for row in COVER}
        assert met == set(itertools.product(*columns))


@pytest.mark.ray
@pytest.mark.parametrize(("kind", "policy", "prior", "workers"), COVER)
def test_ray_gives_the_bits_of_serial(lab, reference, kind, policy, prior, workers):
    changes = {**METHODS[kind], **POLICIES[policy], **PRIORS[prior]}
    engine = {"name": "ray", "workers": workers}
    assert lab.run(**changes, engine=engine).bits == reference(**changes).bits


@pytest.mark.ray
@pytest.mark.parametrize("name", RAY_METHODS)
def test_ray_gives_the_bits_of_serial_for_methods(lab, reference, name):
    changes = SETTINGS[name]
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
@pytest.mark.parametrize("turn", [1, 2])
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


@settings
def test_resume_equals_the_undisturbed_run(lab, reference, changes):
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
@pytest.mark.parametrize("name", ["fedloge", "FedAdam"])
def test_serial_run_resumes_on_ray(lab, reference, name):
    stopped = lab.stopped(1, **METHODS[name])
    outcome = lab.resume(stopped, name="ray", workers=2)
    assert outcome.bits == reference(**METHODS[name]).bits


# ---- groups


@settings
@pytest.mark.parametrize("check", ["groups", "update"])
def test_groups(lab, changes, check):
    """The conformance kit: every tensor in one group, every answer of the shared ones."""
    kept(check, lab, changes)


# ---- sums


def test_mean_of_identical_updates_is_the_update():
    generator = torch.Generator().manual_seed(0)
    update = {"w": torch.randn(50, generator=generator), "b": torch.randn(3, generator=generator)}
    weights = [3.0, 117.0, 40.0, 1.0]
    sums = {n: sum(weight * tensor for weight in weights) for n, tensor in update.items()}
    mean = Total(sums, sum(weights), (0, 1, 2, 3), 4).mean()
    for name, tensor in update.items():
        torch.testing.assert_close(mean[name], tensor, rtol=1e-6, atol=0)


@settings
@pytest.mark.usefixtures("identity")
def test_identical_clients_give_the_clients_model(lab, changes):
    """Weights sum to one: a cohort of one update under several weights leaves that update.

    Methods with a rule of their own for the server's step have it tested in tests/strategies.

    FedAdam takes a step towards the mean instead, so its own mean is read off FedAvg's place.
    """
    if "FedAdam" in str(changes):
        changes = {**changes, "strategy": "flwr.serverapp.strategy:FedAvg"}
    elif "aggregate" in vars(type(lab.federation(**changes).view.strategy)):
        pytest.skip("the server's step is its own")
    bench = Bench(lab.federation(**changes))
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
    if changes.get("batchnorm") == "pooled":  # the update holds var + mean^2
        for name in [name for name in expected if name.endswith("running_var")]:
            mean = expected[name.replace("running_var", "running_mean")]
            expected[name] = expected[name] - mean.square()
    for name, tensor in expected.items():
        found = server.state.broadcast[name]
        torch.testing.assert_close(found, tensor, rtol=2e-6, atol=1e-6)


@methods
def test_the_sum_does_not_depend_on_which_client_answers_first(lab, reference, changes):
    """An engine that runs jobs backwards still yields them in cohort order: the same bits."""
    spec = f"{__file__}:BackwardsEngine"
    assert lab.run(**changes, engine={"name": spec}).bits == reference(**changes).bits


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


# ---- workers


def kept(check, lab, changes):
    """Assert that a setting keeps a promise of the conformance kit."""
    result = run_check(check, Subject(lab.config(**changes)))
    assert result.status in ("ok", "note"), str(result)


def message(cid):
    return Message(RecordDict({"config": ConfigRecord({})}), cid, "train")


@settings
@pytest.mark.parametrize("check", ["pure", "random", "clock", "writes", "first-state"])
def test_a_task_is_a_function_of_what_it_is_given(lab, changes, check):
    """The conformance kit: clients A, B, A; global generators; the clock; writing; first states."""
    kept(check, lab, changes)


@settings
def test_clients_differ(lab, changes):
    bench = Bench(lab.federation(**changes))
    assert frozen(bench.task(1)) != frozen(bench.task(2))


@methods
def test_a_run_reads_no_global_randomness(lab, reference, changes):
    expected = reference(**changes).bits
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    assert lab.run(**changes).bits == expected


@methods
def test_a_run_leaves_pythons_and_numpys_generators_alone(lab, changes):
    random.seed(5)
    np.random.seed(5)
    lab.run(**changes, rounds=1)
    drawn = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    assert drawn == (random.random(), np.random.rand())


@settings
def test_first_personal_state_is_drawn_by_seed_and_cid(lab, changes):
    def first(cid, *, seed=1, salt=0):
        bench = Bench(lab.federation(**{**changes, "seed": seed, "rng_salt": salt}))
        return raw(bench.client(cid).personal)

    base = first(1)
    assert first(1) == base
    if "heads.local.weight" in base:  # drawn, one per client and seed
        others = [first(2), first(1, seed=2), first(1, salt=1)]
        assert all(o["heads.local.weight"] != base["heads.local.weight"] for o in others)


@settings
def test_federation_and_its_parts_are_picklable(lab, changes):
    federation = lab.federation(**changes)
    copy = pickle.loads(pickle.dumps(federation))
    for party, original in zip(copy, federation, strict=True):
        assert party.config == original.config
        assert party.strategy == original.strategy
        assert party.plugin == original.plugin
    assert frozen(Bench(copy).task(1)) == frozen(Bench(federation).task(1))


# ---- values


@pytest.mark.parametrize("cls", STRATEGIES.values(), ids=STRATEGIES)
def test_strategies_are_frozen_values(cls):
    assert issubclass(cls, Strategy)
    assert hash(cls()) == hash(cls())
    assert pickle.loads(pickle.dumps(cls())) == cls()
    with pytest.raises(AttributeError):
        cls().anything = 1


@pytest.mark.parametrize("cls", CLIENTS.values(), ids=CLIENTS)
def test_plugins_are_frozen_values(cls):
    assert pickle.loads(pickle.dumps(cls())) == cls()
    with pytest.raises(AttributeError):
        cls().anything = 1
