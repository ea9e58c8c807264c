"""Cohorts as a share of the clients, and drawn by the clients' images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import tasks_of

from fedlt.config import load_config, settings_of
from fedlt.config.cohort import cohort_size
from fedlt.engines.serial import SerialEngine
from fedlt.errors import FedltError
from fedlt.federation import prepare_parties
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy

BY_SIZE = {"sampling": "by_size", "clients_per_round": 4}


@pytest.mark.parametrize(
    ("given", "clients", "size"),
    [(None, 7, 7), (3, 7, 3), (0.1, 100, 10), (0.25, 10, 3), (0.24, 10, 2), (0.01, 10, 1)],
)
def test_the_size_of_a_cohort(given, clients, size):
    assert cohort_size(given, clients) == size


def test_a_share_draws_the_cohorts_of_its_number(lab):
    """40 % of 5 clients are 2: the same cohorts, and the same bits."""
    share, number = (
        make_server_half(lab.federation(clients_per_round=given).view) for given in (0.4, 2)
    )
    for round_ in range(1, 20):
        cohort = share.sample(round_, range(5))
        assert len(cohort) == 2
        assert cohort == number.sample(round_, range(5))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(
        "name: one\nrounds: 1\ndata: {dataset: synthetic}\npartition: {num_clients: 4}\n"
    )
    return path


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["clients_per_round=1.0"], "clients_per_round is 1.0; expected"),
        (["clients_per_round=0"], "clients_per_round is 0; expected"),
        (["clients_per_round=-0.5"], "clients_per_round is -0.5; expected"),
        (["clients_per_round=5"], "clients_per_round: 5 is more than partition.num_clients: 4"),
        (["sampling=size"], "sampling is 'size'; expected 'uniform' or 'by_size'"),
        (["sampling=by_size"], "sampling: by_size needs clients_per_round"),
        (
            ["sampling=by_size", "clients_per_round=2", "prior.use=global",
             "prior.source=secure_sum"], "secure_sum would tell",
        ),
    ],
)  # fmt: skip
def test_values_without_a_meaning_are_refused(file, overrides, reason):
    with pytest.raises(FedltError, match=reason) as told:
        load_config(file, overrides)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn", "pfedme", "fednh", "centralised"])
def test_strategies_with_weights_of_their_own_refuse(file, strategy):
    given = [f"strategy={strategy}", "sampling=by_size", "clients_per_round=2"]
    config = load_config(file, given)
    with pytest.raises(FedltError, match="sampling: "):
        prepare_parties(config, resolve_strategy(config), resolve_client(config))


def test_files_without_the_key_have_the_settings_of_before(file):
    assert "sampling" not in settings_of(load_config(file))


def test_the_mean_over_draws_is_unbiased(lab):
    """Each client k has a number x_k; the plain mean over draws is on average sum n_k x_k / n.

    2000 rounds of 4 draws: the standard error is sqrt(var / 8000), var of one draw.
    """
    federation = lab.federation(**BY_SIZE)
    server, sizes = make_server_half(federation.view), federation.observer.data.client_sizes
    assert len(set(sizes.tolist())) > 1
    numbers = np.array([1.0, -2.0, 5.0, 0.5, 10.0])
    shares = sizes / sizes.sum()
    expected = float(shares @ numbers)
    spread = float(shares @ (numbers - expected) ** 2)
    means = []
    for round_ in range(1, 2001):
        cohort = server.sample(round_, range(5))
        assert len(cohort) == 4
        plan = server.plan(round_, cohort)
        assert plan.asked == tuple(sorted(set(cohort)))
        draws = np.array([plan.settings(cid)["draws"] for cid in plan.asked])
        assert draws.sum() == 4
        means.append(draws @ numbers[list(plan.asked)] / draws.sum())
    assert abs(np.mean(means) - expected) < 4 * np.sqrt(spread / 8000)
    again = make_server_half(lab.federation(**BY_SIZE).view)
    assert again.sample(7, range(5)) == server.sample(7, range(5))


def test_a_client_drawn_twice_counts_twice_in_a_plain_mean(lab):
    """The new model is the mean of the clients' models weighted by draws, not by images."""
    federation = lab.federation(**BY_SIZE, rounds=1)
    server = make_server_half(federation.view)
    with SerialEngine(federation) as engine:
        cohort = server.cohort(1, engine)
        plan = server.plan(1, cohort)
        assert max(plan.draws.values()) > 1
        whole = engine.train(tasks_of(server, engine), reduce=True)
        after = server.aggregate(1, plan, whole).state.broadcast
        models = {}
        for message in tasks_of(server, engine):
            (reply,) = engine.train([message], reduce=True)
            own = server._add([reply])
            weight = plan.draws[message.metadata.dst_node_id]
            assert own.lists["weight"] == [weight]
            models[message.metadata.dst_node_id] = {n: t / weight for n, t in own.sums.items()}
    for name in server.model.parameter_names("shared"):
        mean = sum(plan.draws[cid] * own[name] for cid, own in models.items()) / 4
        torch.testing.assert_close(after[name], mean)


@pytest.mark.slow
@pytest.mark.ray
def test_runs_are_the_same_on_ray_and_after_a_stop(lab):
    serial = lab.run(**BY_SIZE)
    assert lab.run(**BY_SIZE, engine={"name": "ray", "workers": 2}).bits == serial.bits
    assert lab.resume(lab.stopped(1, **BY_SIZE)).bits == serial.bits
