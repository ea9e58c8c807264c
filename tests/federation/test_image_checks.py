"""Operations on images, and data sets of feature vectors or floats."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.errors import FedltError
from fedlt.generators.pool import check_pixels

LOADER = """
import numpy as np
from fedlt.data import dataset_from_arrays

def features(d=5, shape=None):
    draw, labels = np.random.default_rng(0), np.arange(60) % 3
    x = draw.normal(0, 1, (60, d)) + 4 * np.eye(3, d)[labels]
    if shape:
        x = draw.random((60, *shape), dtype=np.float32)
    return dataset_from_arrays("mine", x, labels, x, labels)
"""


@pytest.fixture
def data(tmp_path):
    (tmp_path / "mine.py").write_text(LOADER)

    def make(**options):
        return {
            "dataset": f"{tmp_path}/mine.py:features",
            "imbalance_factor": 1,
            "options": options,
        }

    return make


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local": {"augment": "crop"}}, "local.augment: crop is for images, and 'mine' holds"),
        ({"client": "mdcs"}, "client 'mdcs' is for images, .* of which there are no views"),
        ({"client": {"name": "class_balanced_sampling", "loss": "fedyoyo"}}, "is for images"),
        ({"client": "deit_lt"}, "client 'deit_lt' is for images"),
    ],
)
def test_image_operations_are_refused_for_features(lab, data, changes, message):
    options = {"model": {"name": "mlp", "width": 4}, "local": {"augment": "none"}, **changes}
    with pytest.raises(FedltError, match=message) as caught:
        lab.federation(data=data(), **options)
    assert "\n" not in str(caught.value)


def test_features_are_learnt(lab, data):
    """Three classes 4 standard deviations apart: a classifier gets nearly all of them right."""
    outcome = lab.run(
        data=data(),
        partition={"scheme": "iid", "num_clients": 3},
        model={"name": "mlp", "width": 16},
        local={"augment": "none", "epochs": 5, "batch_size": 4, "lr": 0.1},
        rounds=4,
        clients_per_round=3,
    )
    assert outcome.result["final"]["generic/accuracy"] > 0.9


@pytest.mark.parametrize("client", ["mdcs", "fedyoyo", "infobatch", "mixup"])
def test_plugins_train_on_float_images_that_are_not_square(lab, data, client):
    outcome = lab.run(
        data=data(shape=(3, 6, 9)),
        client=client,
        local={"augment": "crop_flip"},
        rounds=1,
        clients_per_round=1,
    )
    assert np.isfinite(outcome.rows[-1]["generic/accuracy"])


def test_pools_of_synthetic_images_need_pixels(lab, data):
    federation = lab.federation(data=data(shape=(1, 6, 6)), local={"augment": "none"})
    with pytest.raises(FedltError, match="8-bit pixels, and the images of 'mine' are floats"):
        check_pixels(federation.observer.data)
