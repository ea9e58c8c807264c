"""Stock Flower strategies inside a fedlt run: sampling, state, buffers, options."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from by_hand import play_round
from flwr.serverapp.strategy import FedAdam

from fedlt.engines.serial import SerialEngine
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.simulate import run
from fedlt.worker.worker import Worker

FLOWER = "flwr.serverapp.strategy"


def play(federation, rounds, server=None):
    """Run rounds by hand; return the server half and the cohorts."""
    server = server or make_server_half(federation.view)
    with SerialEngine(federation) as engine:
        numbers = range(server.state.round + 1, rounds + 1)
        return server, [list(play_round(server, engine, number).plan.asked) for number in numbers]


def test_cohorts_are_sorted_seeded_by_round_and_of_the_files_size(lab):
    federation = lab.federation(strategy=f"{FLOWER}:FedAdam", partition={"num_clients": 8})
    random.seed(1)
    first = play(federation, 4)[1]
    random.seed(2)
    state = random.getstate()
    second = play(federation, 4)[1]
    assert first == second
    assert random.getstate() == state
    assert all(cohort == sorted(set(cohort)) and len(cohort) == 3 for cohort in first)
    assert len({tuple(cohort) for cohort in first}) > 1
    other = lab.federation(strategy=f"{FLOWER}:FedAdam", partition={"num_clients": 8}, seed=2)
    assert play(other, 4)[1] != first


def test_without_clients_per_round_everybody_takes_part(lab):
    federation = lab.federation(strategy=f"{FLOWER}:FedAvg", clients_per_round=None)
    assert play(federation, 1)[1] == [[0, 1, 2, 3, 4]]


def test_fedadam_equals_flowers_own_step(lab):
    """Clients trained one by one, averaged in NumPy; then the update formula of FedAdam.

    m = b1 m + (1 - b1) d, v = b2 v + (1 - b2) d^2, x += eta_t m / (sqrt(v) + tau), where d is the
    mean model less x, and eta_t = eta sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)).
    """
    federation = lab.federation(
        strategy={"name": f"{FLOWER}:FedAdam", "eta": 0.05, "tau": 0.01}, clients_per_round=None
    )
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    name = "backbone.layers.4.weight"
    sizes = federation.observer.data.client_counts.sum(axis=1)
    m = v = 0.0
    for round_ in (1, 2):
        before = server.state.broadcast[name].double().numpy()
        mean = 0.0
        for cid in range(5):
            client = worker.client(
                cid, round_, server.state.broadcast, fixed=server.state.fixed, personal={}
            )
            trained = worker.train(client).sums[name].double().numpy()
            mean = mean + trained * sizes[cid] / sizes.sum()
        m = 0.9 * m + 0.1 * (mean - before)
        v = 0.99 * v + 0.01 * (mean - before) ** 2
        eta = 0.05 * np.sqrt(1 - 0.99 ** (round_ + 1)) / (1 - 0.9 ** (round_ + 1))
        play(federation, round_, server)
        found = server.state.broadcast[name]
        assert found.dtype == torch.float32
        expected = before + eta * m / (np.sqrt(v) + 0.01)
        np.testing.assert_allclose(found.numpy(), expected, rtol=2e-3, atol=2e-5)


def test_moments_are_in_the_snapshot_and_come_back(lab):
    federation = lab.federation(strategy=f"{FLOWER}:FedAdam")
    server, _ = play(federation, 2)
    saved = server.snapshot()
    trained = set(server.model.parameter_names("shared"))
    for group in ("m_t", "v_t"):
        assert {name.removeprefix("dict/") for name in saved.tensors[f"stock/{group}"]} == trained
    copy = make_server_half(federation.view)
    copy.restore(saved)
    assert copy.state.round == 2
    for group in ("m_t", "v_t"):
        mine, theirs = getattr(copy.stock, group), getattr(server.stock, group)
        assert set(mine) == set(theirs)
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
        assert any(np.abs(array).max() > 0 for array in mine.values())
    assert isinstance(copy.stock, FedAdam)


def test_without_its_moments_a_resumed_fedadam_would_differ(lab):
    """The counter-test of the contract on resuming."""
    federation = lab.federation(strategy=f"{FLOWER}:FedAdam")
    server, _ = play(federation, 2)
    saved = server.snapshot()
    states = []
    for forget in (False, True):
        copy = make_server_half(federation.view)
        kept = {n: g for n, g in saved.tensors.items() if not (forget and n == "stock/m_t")}
        copy.restore(replace(saved, tensors=kept))
        states.append(play(federation, 3, copy)[0].state.broadcast["heads.head.weight"])
    whole = play(federation, 3, server)[0].state.broadcast["heads.head.weight"]
    assert torch.equal(states[0], whole)
    assert not torch.equal(states[1], whole)


@pytest.mark.parametrize("policy", ["average", "pooled"])
def test_variances_stay_positive_under_a_rough_server_step(lab, policy):
    """An adaptive step on running variances turns them negative; 20 rounds at eta = 1 do not."""
    federation = lab.federation(
        strategy={"name": f"{FLOWER}:FedAdam", "eta": 1.0}, batchnorm=policy, rounds=20
    )
    server, _ = play(federation, 20)
    variances = [t for n, t in server.state.broadcast.items() if n.endswith("running_var")]
    assert len(variances) == 3
    assert all(bool((variance >= 0).all()) for variance in variances)
    assert all(bool(t.isfinite().all()) for t in server.state.broadcast.values())


def test_only_trainable_parameters_pass_through_the_strategy(lab):
    federation = lab.federation(strategy=f"{FLOWER}:FedAdam")
    server, _ = play(federation, 1)
    assert set(server.stock.current_arrays) == {n for n, _ in server.model.named_parameters()}


@pytest.mark.parametrize("name", ["FedAvg", "FedAvgM", "FedAdagrad", "FedYogi", "FedMedian"])
def test_other_stock_strategies_run_and_resume(lab, name):
    changes = {"strategy": f"{FLOWER}:{name}"}
    if name == "FedAvgM":
        changes["strategy"] = {"name": f"{FLOWER}:{name}", "server_momentum": 0.9}
    whole = lab.run(**changes)
    assert whole.result["excluded"] == []
    assert lab.resume(lab.stopped(1, **changes)).bits == whole.bits


def test_krum_keeps_one_clients_model(lab):
    """Krum's model is one client's, unchanged: the one nearest to its neighbours."""
    federation = lab.federation(
        strategy={"name": f"{FLOWER}:Krum", "num_malicious_nodes": 1}, clients_per_round=None
    )
    worker, first = Worker(federation.shares), make_server_half(federation.view)
    models = []
    for cid in range(5):
        client = worker.client(cid, 1, first.state.broadcast, fixed={}, personal={})
        models.append(worker.train(client).sums["heads.head.weight"].clone())
    server, _ = play(federation, 1)
    found = server.state.broadcast["heads.head.weight"]
    assert sum(torch.equal(found, model) for model in models) == 1


def test_stock_fedavg_agrees_with_ours(lab, reference):
    """The same cohorts (all clients), the same updates; sums in another order."""
    ours = lab.run(clients_per_round=None).checkpoint.tensors["broadcast"]
    theirs = lab.run(clients_per_round=None, strategy=f"{FLOWER}:FedAvg")
    for name, tensor in theirs.checkpoint.tensors["broadcast"].items():
        torch.testing.assert_close(tensor, ours[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"etta": 0.1}, r"strategy\.etta.*nearest: 'eta'"),
        ({"eta": "fast"}, r"strategy\.eta"),
        ({"min_train_nodes": 3}, "clients_per_round sets the cohort"),
        ({"fraction_train": 0.5}, "clients_per_round sets the cohort"),
    ],
)
def test_bad_options_are_refused_in_one_line(lab, options, words):
    config = lab.fresh(strategy={"name": f"{FLOWER}:FedAdam", **options})
    with pytest.raises(FedltError, match=words) as caught:
        run(config)
    assert "\n" not in str(caught.value)
    assert not lab.output.exists()


@pytest.mark.parametrize("name", ["FedAdam", "FedAvgM", "FedYogi"])
def test_short_names_are_flowers_own_classes(lab, name):
    """With Flower's defaults, except that FedAvgM without momentum would be FedAvg."""
    long, short = (
        make_server_half(lab.federation(strategy=strategy).view).stock
        for strategy in (f"{FLOWER}:{name}", name.lower())
    )
    differs = {"server_momentum": 0.9, "server_opt": True} if name == "FedAvgM" else {}
    assert type(short) is type(long)
    assert vars(short) == {**vars(long), **differs}


def test_options_of_short_names_replace_the_tables(lab):
    strategy = {"name": "fedavgm", "server_momentum": 0.5, "server_learning_rate": 0.7}
    stock = make_server_half(lab.federation(strategy=strategy).view).stock
    assert (stock.server_momentum, stock.server_learning_rate) == (0.5, 0.7)
    with pytest.raises(FedltError, match="etta: unknown hyperparameter of 'fedadam'"):
        lab.federation(strategy={"name": "fedadam", "etta": 1})


def test_fedavgm_by_its_formula(lab):
    """v <- 0.9 v + (x - mean), x <- x - v (Hsu et al., 2019): the mean is read off FedAvg's step.

    Round 1 is FedAvg's; round 2 starts from the same x, hence has FedAvg's mean of round 2.
    """
    means, found = (
        [
            lab.run(strategy=name, rounds=n, batchnorm="average").checkpoint.tensors["broadcast"]
            for n in (1, 2)
        ]
        for name in (f"{FLOWER}:FedAvg", "fedavgm")
    )
    start = make_server_half(lab.federation().view).state.broadcast
    for name in make_server_half(lab.federation().view).model.parameter_names("shared"):
        first = start[name] - means[0][name]
        torch.testing.assert_close(found[0][name], means[0][name], rtol=1e-5, atol=1e-6)
        expected = means[1][name] - 0.9 * first
        torch.testing.assert_close(found[1][name], expected, rtol=1e-4, atol=1e-5)


def test_options_reach_the_strategy(lab):
    federation = lab.federation(strategy={"name": f"{FLOWER}:FedAdam", "eta": 0.25, "beta_2": 0.5})
    stock = make_server_half(federation.view).stock
    assert (stock.eta, stock.beta_1, stock.beta_2) == (0.25, 0.9, 0.5)
