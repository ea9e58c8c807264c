"""A data plugin with a loss plugin: who owns what, what is refused, what the files say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from clients import CLIENTS, ClassBalancedSampling, CrossEntropy, FedYoYo, Focal, LdamDrw, Mixup
from fedlt.client import Batch, ClientPlugin
from fedlt.config import config_hash, load_config, to_yaml
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.losses import cross_entropy
from fedlt.methods.composition import (
    Composed,
    compose,
    is_plain,
    kind_of,
    own_cross_entropy,
    weighted,
)
from fedlt.methods.lookup import resolve_client
from fedlt.worker.worker import Worker

BASE = "name: a\nrounds: 1\n"


def client_of(lab, client, **changes):
    federation = lab.federation(client=client, **changes)
    state = make_server_half(federation.view).state
    return Worker(federation.shares).client(1, 1, state.broadcast, fixed=state.fixed, personal={})


def load(tmp_path, text, *overrides):
    path = tmp_path / "a.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    return load_config(path, overrides)


# ---- kinds


def test_kinds_are_read_off_the_verbs():
    kinds = {name: kind_of(cls) for name, cls in CLIENTS.items()}
    assert {name for name, kind in kinds.items() if kind == "data"} >= {
        "class_balanced_sampling", "square_root_sampling", "mixup",
    }  # fmt: skip
    assert {kinds[n] for n in ("cross_entropy", "focal", "ldam_drw", "fedyoyo")} == {"loss"}
    assert kind_of(ClientPlugin) == "loss"


@dataclass(frozen=True)
class Whole(ClientPlugin):
    """Batches and a loss for them."""

    def batches(self, client, epoch):
        yield from super().batches(client, epoch)

    def loss(self, logits, batch, client):
        return super().loss(logits, batch, client)


@dataclass(frozen=True)
class Clash(ClientPlugin):
    """A loss plugin that puts what the data plugin put."""

    def setup(self, client):
        client.tensors["shared"] = torch.ones(())


@dataclass(frozen=True)
class Putting(ClassBalancedSampling):
    """A data plugin with a tensor."""

    def setup(self, client):
        client.tensors["shared"] = torch.zeros(())


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ({"name": "focal", "loss": "ldam_drw"}, "Focal is a loss plugin itself"),
        ({"name": "mixup", "loss": "mixup"}, "Mixup is a data plugin"),
        ({"name": "mixup", "loss": f"{__file__}:Whole"}, "Whole makes batches of its own"),
        ({"name": f"{__file__}:Whole", "loss": "focal"}, "Whole makes batches for its own loss"),
        ({"name": "mixup", "loss": "fedyoyo"}, "loss of FedYoYo is no mean over single images"),
        ({"name": "mixup", "loss": "score_graph_cut"}, "is no mean over single images"),
        ({"name": "mixup", "loss": "focl"}, "client.loss.name: unknown client 'focl'; nearest"),
        ({"name": "mixup", "loss": {"name": "focal", "gama": 1}}, "client.loss.gama: unknown"),
        (
            {"name": "mixup", "loss": {"name": "focal", "gamma": -1}},
            "loss.gamma is -1; expected at",
        ),
    ],
)
def test_what_cannot_compose_is_refused_in_one_line(lab, client, reason):
    with pytest.raises(FedltError, match=reason) as error:
        resolve_client(lab.config(client=client))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("strategy", ["fedntd", "fedproto", "fed_grab", "balancefl", "fedlmd"])
def test_strategies_that_read_labels_refuse_mixed_ones(lab, strategy):
    with pytest.raises(FedltError, match=f"strategy '{strategy}' with client 'mixup \\+ focal'"):
        lab.federation(strategy=strategy, client={"name": "mixup", "loss": "focal"})


def test_two_plugins_may_not_put_the_same_tensor(lab):
    pair = {"name": f"{__file__}:Putting", "loss": f"{__file__}:Clash"}
    with pytest.raises(ValueError, match=r"both plugins put 'shared' into client\.tensors"):
        client_of(lab, pair)


# ---- verbs


def test_each_verb_has_one_owner(lab):
    pair = compose(ClassBalancedSampling(), LdamDrw())
    assert pair.traits.cosine_heads
    assert not pair.traits.needs_global_prior
    assert not is_plain(pair)
    assert is_plain(compose(Mixup(), CrossEntropy()))
    client = client_of(lab, {"name": "class_balanced_sampling", "loss": "ldam_drw"})
    assert isinstance(client.plugin, Composed)
    assert "margins" in client.tensors
    assert not hasattr(client.model.heads["head"], "bias")
    alone = client_of(lab, "class_balanced_sampling")
    for batch, other in zip(client.batches(1), alone.batches(1), strict=True):
        assert torch.equal(batch.images, other.images)


def test_views_are_made_of_the_data_plugins_batches(lab):
    plain_weak = {"name": "fedyoyo", "rotation": 0.0}
    client = client_of(lab, {"name": "class_balanced_sampling", "loss": plain_weak})
    alone = client_of(lab, "class_balanced_sampling")
    for both, weak in zip(client.batches(1), alone.batches(1), strict=True):
        assert torch.equal(both.images[: len(weak.labels)], weak.images)
        assert torch.equal(both.labels, weak.labels.repeat(2))
        assert torch.equal(both.extra["own"], weak.extra["own"].repeat(2))
    assert FedYoYo().traits.per_image is False


# ---- weights


def batch_of(generator, **extra):
    labels = torch.tensor([0, 2, 1, 2, 0])
    return torch.randn(5, 2, 3, generator=generator), Batch(torch.zeros(5, 1, 2, 2), labels, extra)


def numpy_rows(logits, labels):
    values = logits.double().numpy()
    log_p = values - np.log(np.exp(values).sum(-1, keepdims=True))
    return -np.array([row[:, y].mean() for row, y in zip(log_p, labels.numpy(), strict=True)])


def test_weights_and_mixed_labels_by_hand():
    """mean of w (s l(y) + (1 - s) l(y')); on own images times ``own``, too."""
    generator = torch.Generator().manual_seed(0)
    extra = {
        "weights": torch.rand(5, generator=generator),
        "share": torch.rand(5, generator=generator),
        "mixed": torch.tensor([1, 1, 2, 0, 0]),
        "own": torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0]),
    }
    logits, batch = batch_of(generator, **extra)
    share, weight, own = (extra[n].double().numpy() for n in ("share", "weights", "own"))
    rows = share * numpy_rows(logits, batch.labels)
    rows += (1 - share) * numpy_rows(logits, extra["mixed"])
    found = weighted(lambda z, b: cross_entropy(z, b.labels), logits, batch)
    assert found.item() == pytest.approx((weight * rows).mean(), rel=1e-6)
    assert own_cross_entropy(logits, batch).item() == pytest.approx((weight * own * rows).mean())


def test_without_weights_it_is_the_loss_itself_bit_for_bit(lab):
    logits, batch = batch_of(torch.Generator().manual_seed(1))
    assert torch.equal(own_cross_entropy(logits, batch), cross_entropy(logits, batch.labels))
    pair = compose(ClassBalancedSampling(), Focal())
    client = client_of(lab, "focal")
    assert torch.equal(pair.loss(logits, batch, client), Focal().loss(logits, batch, client))


@pytest.mark.parametrize("name", [n for n, cls in CLIENTS.items() if cls.traits.per_image])
def test_losses_that_say_so_are_means_over_images(lab, name):
    """Equal weights of 1 take another way through the code and give the same."""
    more = {"prior": {"use": "global", "source": "oracle"}} if name == "fedir" else {}
    federation = lab.federation(client=name, **more)
    server = make_server_half(federation.view)
    state, counts = server.state, server.prior_counts([0])
    client = Worker(federation.shares).client(
        1, 1, state.broadcast, fixed=state.fixed, personal={}, global_counts=counts
    )
    batch = next(client.batches(1))
    ones = Batch(
        batch.images, batch.labels, {**batch.extra, "weights": torch.ones(len(batch.labels))}
    )
    logits = torch.randn(len(batch.labels), 2, 4, generator=torch.Generator().manual_seed(2))
    plugin = CLIENTS[name]()
    found = Composed(Mixup(), plugin).loss(logits, ones, client)
    torch.testing.assert_close(found, plugin.loss(logits, batch, client))


# ---- files


def test_the_file_names_both(tmp_path):
    config = load(tmp_path, "client: {name: mixup, alpha: 0.4, loss: {name: focal, gamma: 1.0}}\n")
    plugin = resolve_client(config)
    assert plugin == Composed(Mixup(alpha=0.4), Focal(gamma=1.0))
    assert config.client.label == "mixup + focal"
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(again) == config


def test_overrides_reach_the_loss(tmp_path):
    config = load(tmp_path, "client: mixup\n", "client.loss=focal", "client.loss.gamma=3.0")
    assert resolve_client(config) == Composed(Mixup(), Focal(gamma=3.0))
    assert resolve_client(load(tmp_path, "", "client.loss=focal", "client.name=mixup"))
    assert load(
        tmp_path, "client: {name: mixup, loss: focal}\n", "client=ldam_drw"
    ).client.label == ("ldam_drw")


def test_the_hash_depends_on_both_and_a_plain_file_keeps_its_own(tmp_path):
    texts = [
        "mixup",
        "{name: mixup, loss: focal}",
        "{name: mixup, loss: {name: focal, gamma: 1.0}}",
    ]
    hashes = {config_hash(load(tmp_path, f"client: {text}\n")) for text in texts}
    assert len(hashes) == 3
    plain = load(tmp_path, "client: focal\n")
    assert plain.model_dump()["client"] == {"name": "focal"}


def test_a_result_names_both(reference):
    outcome = reference(client={"name": "square_root_sampling", "loss": "focal"})
    assert outcome.result["client"] == "square_root_sampling + focal"


def test_paths_in_hyperparameters_are_absolute_and_count_by_content(tmp_path):
    (tmp_path / "data.npz").write_bytes(b"one")
    config = load(tmp_path, "client: {name: mixup, pool_path: data.npz}\n")
    assert config.client.options["pool_path"] == str(tmp_path / "data.npz")
    before = config_hash(config)
    (tmp_path / "data.npz").write_bytes(b"two")
    assert config_hash(config) != before
    folder = tmp_path / "pool"
    folder.mkdir()
    inside = load(tmp_path, "client: {name: mixup, pool_path: pool}\n")
    before = config_hash(inside)
    (folder / "1.png").write_bytes(b"x")
    assert config_hash(inside) != before
