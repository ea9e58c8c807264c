"""Who takes part in a round, and the messages of one."""

from __future__ import annotations

import numpy as np
from by_hand import tasks_of

from fedlt.engines.serial import SerialEngine
from fedlt.flower.server_half import make_server_half
from fedlt.rng import numpy_generator


def test_cohort_depends_on_seed_and_round_only(lab):
    """Against a drawing of our own from the documented key: (seed, "cohort", round)."""
    server = make_server_half(lab.federation(partition={"num_clients": 9}).view)
    nodes = list(range(9))
    for round_ in (1, 2, 3):
        drawn = numpy_generator(1, "cohort", round_).choice(9, size=3, replace=False)
        assert server.sample(round_, nodes) == sorted(drawn.tolist())
    cohorts = {tuple(server.sample(round_, nodes)) for round_ in range(1, 30)}
    assert len(cohorts) > 10
    assert {cid for cohort in cohorts for cid in cohort} == set(nodes)


def test_seeds_and_salts_give_different_cohorts(lab):
    def cohorts(**changes):
        server = make_server_half(lab.federation(**changes).view)
        return [server.sample(round_, list(range(5))) for round_ in range(1, 20)]

    assert len({str(cohorts(**c)) for c in ({}, {"seed": 2}, {"rng_salt": 1})}) == 3


def test_records_of_a_round_are_shared_by_all_messages(lab):
    """One broadcast record, not one a client: engines send it once."""
    federation = lab.federation()
    server = make_server_half(federation.view)
    with SerialEngine(federation) as engine:
        messages = tasks_of(server, engine)
    assert len(messages) == 3
    assert len({id(m.content["arrays"]) for m in messages}) == 1
    assert len({id(m.content["fixed"]) for m in messages}) == 1


def test_every_client_is_sampled_as_often_whatever_its_cid(lab):
    """5 of 20 clients in 400 rounds: each with chance 1 / 4, standard error sqrt(3 / 16 / 400)."""
    federation = lab.federation(partition={"num_clients": 20}, clients_per_round=5)
    server = make_server_half(federation.view)
    drawn = np.zeros(20)
    for round_ in range(1, 401):
        cohort = server.sample(round_, range(20))
        assert cohort == sorted(set(cohort))
        drawn[cohort] += 1
    assert drawn.sum() == 5 * 400
    assert (np.abs(drawn / 400 - 0.25) < 5 * np.sqrt(3 / 16 / 400)).all()
