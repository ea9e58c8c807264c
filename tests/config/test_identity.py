"""Settings of a fingerprint: a key that is younger than a run changes nothing at its default."""

from __future__ import annotations

import pytest

from fedlt.config import Config, ModelConfig, config_hash, settings_of

# Of `name: x, rounds: 1`, before any key was added to the sections of today's fingerprints.
FIRST = "4e28df0580253c0f2c16f47d2c0683bfe54e1dd2ad7f4a4d12b1fa3fb21daea7"


def test_new_keys_at_their_default_keep_the_hash():
    assert config_hash(Config(name="x", rounds=1)) == FIRST


def test_a_new_key_counts_where_it_is_set():
    deep = Config(name="x", rounds=1, model=ModelConfig(name="mlp", depth=2))
    assert settings_of(deep)["model.depth"] == "2"
    assert "model.depth" not in settings_of(Config(name="x", rounds=1))


@pytest.mark.parametrize(
    ("model", "norm"),
    [
        ({"name": "fedavg_cnn"}, "none"),
        ({"name": "fedavg_cnn", "norm": "group"}, "group"),
        ({"name": "mlp"}, "batch"),
        ({}, "batch"),
    ],
)
def test_a_published_network_without_norm_has_none(model, norm):
    assert ModelConfig.model_validate(model).norm == norm
