"""What DisCL shows on digits with a generator that learns from the same images."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.generators.federated_ddpm import FederatedDdpm
from fedlt.generators.filling import pool_place
from fedlt.generators.generator import PoolRequest, tail_sources
from fedlt.generators.measures import similarities
from fedlt.generators.pool import load_pool

SETTINGS = {"rounds": 60, "local_steps": 10, "batch_size": 32, "width": 16, "per_image": 4}
TAIL = 0.45  # the four rarest classes: 42 images
SEEDS = (1, 2, 3)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def toy(client, seed):
    """One client that holds all digits, and a small network without BatchNorm."""
    return {
        "seed": seed,
        "data": {"dataset": "digits", "imbalance_factor": 20, "options": {}},
        "partition": {"num_clients": 1, "scheme": "iid"},
        "clients_per_round": None,
        "model": {"width": 16, "norm": "group"},
        "local": {"batch_size": 16, "lr": 0.1, "momentum": 0.5},
        "prior": {"use": "global", "source": "oracle"},
        "rounds": 60,
        "evaluate": {"every": 60},
        "checkpoint": {"every": 60},
        "client": client,
    }


@pytest.fixture(scope="module")
def outcomes(lab_factory):
    """Return the accuracies of both, and the pool, by seed."""
    pytest.importorskip("diffusers", reason="needs fedlt[diffusion]")
    lab, found = lab_factory("discl"), {}
    generator = {"name": "federated_ddpm", **SETTINGS}
    made = {"name": "discl", "tail_below": TAIL, "generator": generator}
    control = {**made, "curriculum": "oversample"}
    for seed in SEEDS:
        runs = {
            name: lab.run(**toy(client, seed)).result["final"]
            for name, client in (("ce", "cross_entropy"), ("discl", made), ("control", control))
        }
        preparation = lab.federation(**toy(made, seed)).observer.preparation()
        levels = FederatedDdpm.usual_levels
        request = PoolRequest(preparation, tail_sources(preparation, TAIL), levels)
        pool = load_pool(pool_place(FederatedDdpm(**SETTINGS), request))
        found[seed] = (runs, pool, preparation.data)
    return found


def mean(outcomes, row, metric):
    return np.mean([100 * runs[row][f"generic/{metric}"] for runs, _, _ in outcomes.values()])


def test_few_class_accuracy_rises_by_8_points_over_cross_entropy(outcomes):
    """Few, seeds 1 to 3: cross-entropy 78.5 +- 1.8, DisCL 87.8 +- 1.5; many 100 for all.

    Most of it is seen more often, not made: over-sampled real images have 84.5 +- 2.2, which is
    not asserted. With BatchNorm the network is at 85.8 by cross-entropy, and DisCL at 88.3.
    """
    assert mean(outcomes, "discl", "few") - mean(outcomes, "ce", "few") >= 8
    assert mean(outcomes, "ce", "many") - mean(outcomes, "discl", "many") <= 2


def test_similarity_to_the_source_and_acceptance_rise_with_guidance(outcomes):
    for _, pool, data in outcomes.values():
        place = np.full(data.pool_indices.max() + 1, -1)
        place[data.pool_indices] = np.arange(len(data.pool_indices))
        near, passed = [], []
        for level in FederatedDdpm.usual_levels:
            here = pool.take(pool.levels == level)
            sources = data.train_images[place[here.sources]]
            near.append(similarities(here.images, sources).mean())
            passed.append((here.scores >= FederatedDdpm.least_score).mean())
        assert near == sorted(near)
        assert near[-1] - near[0] > 0.05
        assert passed == sorted(passed)
