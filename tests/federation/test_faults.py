"""Who is hit by which fault: closed forms, rates over large populations, and rules by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from fedlt.config import FaultsConfig
from fedlt.errors import FedltError
from fedlt.federation.faults import FaultLog, Faults, NormRule, RoundFaults, aimed_rates
from fedlt.flower.server_half import make_server_half
from fedlt.rng import uniform

MANY = 6_000


def population(section, *, clients=MANY, full=10, lost=None, seed=1, needed=1):
    """Return the faults of clients of equal size, all of them corrupt and there from the start."""
    return Faults(
        config=FaultsConfig.model_validate(section),
        seed=seed,
        lost=np.full(clients, 0.0 if lost is None else lost),
        joins=np.ones(clients, dtype=np.int64),
        corrupt=np.ones(clients, dtype=bool),
        full_steps=np.full(clients, full),
        median_steps=float(full),
        needed=needed,
    )


def draw(faults, round_=1, *, stored=True):
    clients = len(faults.lost)
    return faults.of_round(round_, range(clients), stored=np.full(clients, stored))


def near(count, rate, n=MANY):
    """Within four standard deviations of a binomial count."""
    return abs(count - n * rate) < 4 * math.sqrt(n * rate * (1 - rate))


def test_uniform_draws_are_uniform_and_keyed():
    """Moments of the uniform distribution, 1/2 and 1/12, to four standard errors."""
    values = np.array([uniform(1, "a", 3, i) for i in range(MANY)])
    assert abs(values.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / MANY)
    assert abs(values.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / MANY)
    assert 0 < values.min() < values.max() < 1
    assert uniform(1, "a", 3, 4) == values[4]
    assert len({uniform(1, "a", 3, 4), uniform(2, "a", 3, 4), uniform(1, "b", 3, 4)}) == 3


# ---- lost


def test_lost_at_the_stated_rate_independently_of_round_and_client():
    faults = population({}, lost=0.3)
    first, second = (set(draw(faults, round_).lost) for round_ in (1, 2))
    assert near(len(first), 0.3)
    assert near(len(first & second), 0.09)
    assert draw(faults).lost == draw(faults).lost
    assert set(draw(faults).asked) == set(range(MANY)) - first


@pytest.mark.parametrize(
    ("shares", "rate", "expected"),
    [
        ([0.0, 0.1, 0.2, 0.1], 0.2, [0.0, 0.2, 0.4, 0.2]),  # c = 0.2 * 4 / 0.4 = 2
        ([0.0, 0.5, 0.1, 0.1], 0.4, [0.0, 1.0, 0.3, 0.3]),  # 0.5 c > 1; then c = 0.6 / 0.2 = 3
        ([0.0, 0.5, 0.1, 0.1], 0.75, [0.0, 1.0, 1.0, 1.0]),  # all that own any
        ([0.3, 0.3], 0.0, [0.0, 0.0]),
        ([0.0, 0.0], 0.0, [0.0, 0.0]),
    ],
)
def test_aimed_rates_by_hand(shares, rate, expected):
    np.testing.assert_allclose(aimed_rates(shares, rate), expected, atol=1e-12)


def test_aimed_at_few_follows_each_clients_share_of_few_classes(lab):
    """Ten clients; the few-classes are the rarest round(0.3 * 4) = 1 of four, class 3."""
    changes = {"partition": {"num_clients": 10}, "data": {"imbalance_factor": 5}}
    federation = lab.federation(**changes, faults={"lost": {"rate": 0.2, "aim": "few"}})
    counts = federation.observer.data.client_counts
    assert federation.observer.data.class_counts.argmin() == 3
    share = counts[:, 3] / counts.sum(axis=1)
    rates = Faults.of(federation.observer).lost
    assert rates.mean() == pytest.approx(0.2)
    assert (rates[share == 0] == 0).all()
    inside = (share > 0) & (rates < 1)
    ratios = rates[inside] / share[inside]
    np.testing.assert_allclose(ratios, ratios[0])
    assert (share[rates == 1] * ratios[0] >= 1 - 1e-9).all()


def test_aimed_lost_prefers_owners_of_few_classes():
    faults = population({}, clients=MANY)
    owners = np.arange(MANY) < MANY // 4
    object.__setattr__(faults, "lost", aimed_rates(owners * 1.0, 0.2))
    lost = np.array(draw(faults).lost)
    assert near(len(lost), 0.8, MANY // 4)  # 0.2 * 4
    assert owners[lost].all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"imbalance_factor": 1}, "needs few-classes"),
        ({"imbalance_factor": 5}, "rate: 0.99 cannot be met"),
    ],
)
def test_aim_that_cannot_be_met_is_refused(lab, changes, words):
    partition = {"num_clients": 10, "dirichlet_alpha": 0.1}
    faults = {"lost": {"rate": 0.99, "aim": "few"}}
    federation = lab.federation(data=changes, partition=partition, faults=faults)
    with pytest.raises(FedltError, match=words) as caught:
        Faults.of(federation.observer)
    assert "\n" not in str(caught.value)


# ---- stragglers


def test_share_of_stragglers_is_that_of_the_lognormal():
    """Clients of equal size miss the deadline d if exp(sigma z) > d: 1 - Phi(ln d / sigma)."""
    faults = population({"straggler": {"deadline": 1.5, "spread": 0.5}}, full=1000)
    first = draw(faults)
    assert near(len(first.partial), 1 - NormalDist().cdf(math.log(1.5) / 0.5))
    assert draw(faults, 2).partial == first.partial  # a client's speed is drawn once
    assert first.dropped == ()
    below = sum(done < 500 for done, _ in first.partial.values())  # time over 3 deadlines' half
    assert near(below, 1 - NormalDist().cdf(math.log(3) / 0.5))


def test_jitter_is_drawn_for_every_round():
    section = {"straggler": {"deadline": 1.0, "spread": 0.0, "jitter": 1.0, "action": "drop"}}
    faults = population(section)
    first, second = (set(draw(faults, round_).dropped) for round_ in (1, 2))
    assert near(len(first), 0.5)
    assert near(len(first & second), 0.25)
    assert draw(faults).partial == {}


def test_steps_before_the_deadline_by_hand(lab):
    """Without spread a client makes floor(d m) steps, m the median of all clients' whole tasks."""
    local = {"batch_size": 4, "epochs": 2}
    faults = {"straggler": {"deadline": 0.6, "spread": 0.0}}
    federation = lab.federation(local=local, faults=faults)
    sizes = federation.observer.data.client_counts.sum(axis=1).tolist()
    whole = [2 * (math.ceil(n / 4) - (n % 4 == 1 and n > 4)) for n in sizes]
    in_time = math.floor(0.6 * float(np.median(whole)))
    server = make_server_half(federation.view, Faults.of(federation.observer))
    plan = server.plan(1, [0, 1, 2, 3, 4])
    expected = {cid: (in_time, full) for cid, full in enumerate(whole) if full > in_time}
    assert plan.partial == expected
    assert expected
    assert len(expected) < 5


def test_no_time_for_one_step_is_no_answer():
    plan = draw(population({"straggler": {"deadline": 0.05, "spread": 0.0}}, clients=3))
    assert (plan.dropped, plan.asked) == ((0, 1, 2), ())  # floor(0.05 * 10) = 0


# ---- late, corrupt, stale


def test_late_clients_join_between_first_and_last_and_never_before(lab):
    changes = {"partition": {"num_clients": 20}, "rounds": 40, "clients_per_round": 8}
    federation = lab.federation(**changes, faults={"late": {"share": 0.4, "first": 5, "last": 9}})
    server = make_server_half(federation.view, Faults.of(federation.observer))
    joins = server.faults.joins
    assert (joins > 1).sum() == 8
    assert joins[joins > 1].min() >= 5
    assert joins.max() <= 9
    for round_ in range(1, 41):
        cohort = server.sample(round_, list(range(20)))
        assert len(cohort) == 8
        assert (joins[cohort] <= round_).all()
    assert [server.faults.late(round_) for round_ in (4, 9)] == [8, 0]


def test_joining_rounds_are_uniform():
    from fedlt.federation.faults import _joining_rounds

    section = FaultsConfig.model_validate({"late": {"share": 1.0, "first": 3, "last": 6}})
    joins = _joining_rounds(section, 1, MANY)
    assert sorted(set(joins.tolist())) == [3, 4, 5, 6]
    assert all(near(count, 0.25) for count in np.bincount(joins)[3:])


def test_corrupt_clients_are_a_fixed_share_and_err_at_their_rate(lab):
    federation = lab.federation(
        partition={"num_clients": 30}, faults={"corrupt": {"share": 0.3, "rate": 0.5}}
    )
    faults = Faults.of(federation.observer)
    assert faults.corrupt.sum() == 9
    seen = [faults.of_round(r, range(30), stored=faults.corrupt).corrupt for r in range(1, 400)]
    assert {cid for cids in seen for cid in cids} == set(np.flatnonzero(faults.corrupt).tolist())
    assert near(sum(map(len, seen)), 0.5, 9 * 399)


def test_stale_needs_a_stored_state_and_lasts():
    """Rate r over n rounds: the store is out with probability 1 - (1 - r)^n from round n on."""
    faults = population({"stale": {"rate": 0.1, "rounds": 3}})
    assert draw(faults, stored=False).stale == ()
    assert near(len(draw(faults, 1).stale), 0.1)
    assert near(len(draw(faults, 5).stale), 1 - 0.9**3)
    assert set(draw(faults, 1).stale) <= set(draw(faults, 3).stale)
    assert not set(draw(faults, 1).stale) <= set(draw(faults, 4).stale)


def test_only_clients_with_faults_are_told_of_them():
    plan = RoundFaults(
        (0, 1, 2), partial={1: (2, 5)}, corrupt=(2,), stale=(2,), sent={"corrupt": "nan"}
    )
    assert plan.settings(0) == {}
    assert plan.settings(1) == {"work": [2, 5]}
    assert plan.settings(2) == {"corrupt": "nan", "stale": True}


def test_too_few_answers_for_a_secure_sum_give_the_round_up():
    assert draw(population({}, clients=3, lost=0.0, needed=4)).asked == ()
    assert draw(population({}, clients=3, lost=0.0, needed=3)).asked == (0, 1, 2)


@pytest.mark.usefixtures("identity")
def test_without_the_section_nothing_is_drawn_or_sent(lab):
    federation = lab.federation()
    server = make_server_half(federation.view, Faults.of(federation.observer))
    assert (server.faults, server.rule) == (None, None)
    plan = server.plan(1, [0, 3])
    assert plan == RoundFaults((0, 3))
    first, second = (message.content["config"] for message in server.tasks(1, plan))
    assert first is second
    assert dict(first) == {"server-round": 1}


# ---- the norm rule


def test_absolute_norm():
    rule = NormRule(2.0, None)
    assert rule.bound == 2.0
    assert rule.judge({0: 1.0, 1: 2.0, 2: 2.1, 3: math.inf}) == ([2], True)
    assert rule.medians == []


def test_ratio_to_the_running_median_by_hand():
    """Round 1: median 1.2, so 100 > 3 * 1.2 is huge and the sum that holds it is thrown away.

    Round 2 is bound by 3.6, known beforehand; its median (the lower one) is 4, which makes the
    median over the rounds (the lower one of 1.2 and 4) 1.2 again; after round 3 it is 2.
    """
    rule = NormRule(None, 3.0)
    assert rule.bound == math.inf
    assert rule.judge({0: 1.0, 1: 1.2, 2: 100.0}) == ([2], False)
    assert rule.bound == pytest.approx(3.6)
    assert rule.judge({3: 3.5, 4: 4.0, 5: 5.0, 6: math.nan}) == ([4, 5], True)
    assert rule.medians == [1.2, 4.0]
    assert rule.bound == pytest.approx(3.6)
    assert rule.judge({0: 2.0}) == ([], True)
    assert rule.bound == pytest.approx(6.0)


def test_first_round_without_huge_updates_is_used():
    rule = NormRule(None, 3.0)
    assert rule.judge({0: 1.0, 1: 2.0}) == ([], True)
    assert NormRule(50.0, 3.0).judge({0: 1.0, 1: 1.0, 2: 60.0}) == ([2], True)  # left out already


def test_median_looks_ten_rounds_back_and_not_at_clients_without_images():
    rule = NormRule(None, 2.0)
    for norm in range(1, 13):
        rule.judge({0: float(norm), 1: 0.0})
    assert rule.medians == [float(norm) for norm in range(3, 13)]
    assert rule.bound == 2 * 7


def test_log_counts():
    log = FaultLog()
    log.add(1, {"lost": [3, 4], "huge": []}, passed=False)
    log.add(2, {"lost": [], "huge": [5]}, passed=True)
    assert log.entries == [[1, 3, "lost"], [1, 4, "lost"], [2, 5, "huge"]]
    counts = log.metrics(late=7)
    assert counts["train/late"] == 7
    assert (counts["train/lost"], counts["train/huge"], counts["train/stale"]) == (2, 1, 0)
    assert (counts["train/passed"], log.result()["passed_rounds"]) == (1, [2])
    assert FaultLog(**vars(log)) == log
