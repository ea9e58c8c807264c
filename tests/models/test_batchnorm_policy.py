"""BatchNorm under averaging: found by type, pooled exactly, kept with the client."""

import pytest
import torch
from torch import nn

from fedlt.errors import FedltError
from fedlt.models import LinearHead, Model, build_model
from fedlt.models.batchnorm import apply_policy, batchnorm_statistics, from_moments, to_moments


def make(name: str = "resnet18", norm: str = "batch") -> Model:
    model = build_model(name, image_shape=(3, 8, 8), num_classes=3, width=2, norm=norm, seed=1)
    model.add_head("main", LinearHead(model.num_features, 3))
    return model


def test_found_by_type_shortcuts_included() -> None:
    """ResNet-18: 1 stem + 8 blocks of 2 + 3 projections = 20 BatchNorms; none is called bn."""
    pairs = batchnorm_statistics(make())
    assert len(pairs) == 20
    assert sum(".shortcut." in mean for mean, _ in pairs) == 3
    names = make().names()
    assert all(mean in names and var in names for mean, var in pairs)
    assert batchnorm_statistics(make(norm="group")) == []


def test_a_norm_without_statistics_has_no_pair() -> None:
    model = make("cnn")
    model.backbone.layers.append(nn.BatchNorm2d(8, track_running_stats=False))
    model.backbone = model.backbone  # its tensors are looked up anew
    assert len(batchnorm_statistics(model)) == 3


def test_pooled_variance_is_that_of_the_pooled_sample() -> None:
    """Clients of 30 and 70 values: weights 0.3 and 0.7 give the population variance of all 100."""
    values = torch.randn(100, 5, dtype=torch.float64) * 3 + torch.arange(5)
    clients = [values[:30] + 4, values[30:]]
    pairs = [("m", "v")]
    sent = {"m": torch.full((5,), 2.0, dtype=torch.float64)}
    statistics = [{"m": c.mean(0), "v": c.var(0, correction=0), "w": c[0]} for c in clients]
    moments = [to_moments(own, pairs, about=sent) for own in statistics]
    averaged = {name: 0.3 * moments[0][name] + 0.7 * moments[1][name] for name in moments[0]}
    pooled = from_moments(averaged, pairs, about=sent)
    everything = torch.cat(clients)
    torch.testing.assert_close(pooled["m"], everything.mean(0))
    torch.testing.assert_close(pooled["v"], everything.var(0, correction=0))
    torch.testing.assert_close(pooled["w"], averaged["w"])


def test_by_hand() -> None:
    """Means 0 and 2, variances 1 and 3, equal weights: (1 + 3 + 4) / 2 - 1 = 3, not 2."""
    tensors = [{"m": torch.tensor([0.0]), "v": torch.tensor([1.0])}]
    tensors.append({"m": torch.tensor([2.0]), "v": torch.tensor([3.0])})
    for sent in ({"m": torch.tensor([0.0])}, {"m": torch.tensor([-3.0])}):
        first, second = (to_moments(t, [("m", "v")], about=sent) for t in tensors)
        mean = {name: (first[name] + second[name]) / 2 for name in first}
        found = from_moments(mean, [("m", "v")], about=sent)
        assert found == {"m": torch.tensor([1.0]), "v": torch.tensor([3.0])}


def test_a_variance_small_beside_its_mean_keeps_its_digits() -> None:
    """Means about 100 and variances about 0.01, in float32 as they travel, against float64.

    A mean about 100 has a spacing of 8e-6, so (mean - m)^2 with a difference of 0.1 is known to
    2e-6, a 5,000th of the variance. About zero moments are 10,000 with a spacing of 1e-3: a tenth.
    """
    generator = torch.Generator().manual_seed(0)
    sent = {"m": 100 + torch.randn(50, generator=generator)}
    own = [
        {"m": sent["m"] + 0.1 * torch.randn(50, generator=generator),
         "v": 0.01 + 0.001 * torch.rand(50, generator=generator)}
        for _ in range(3)
    ]  # fmt: skip
    weights = [20.0, 30.0, 50.0]
    moments = [to_moments(one, [("m", "v")], about=sent) for one in own]
    mean = {n: sum(w * m[n] for w, m in zip(weights, moments, strict=True)) / 100 for n in "mv"}
    found = from_moments(mean, [("m", "v")], about=sent)["v"].double()
    parts = [(w / 100, o["m"].double(), o["v"].double()) for w, o in zip(weights, own, strict=True)]
    centre = sum(p * m for p, m, _ in parts)
    wanted = sum(p * (v + (m - centre) ** 2) for p, m, v in parts)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)


def test_variance_never_turns_negative_and_inputs_are_not_written() -> None:
    tensors = {"m": torch.tensor([2.0]), "v": torch.tensor([1.0])}
    zero = {"m": torch.tensor([0.0])}
    assert from_moments(tensors, [("m", "v")], about=zero)["v"].item() == 0
    assert to_moments(tensors, [("m", "v")], about=zero)["v"].item() == 5
    assert tensors == {"m": torch.tensor([2.0]), "v": torch.tensor([1.0])}


def test_local_makes_every_batchnorm_personal_and_nothing_else() -> None:
    model = make()
    apply_policy(model, "local")
    personal = model.names("personal")
    assert len(personal) == 20 * 5  # weight, bias, mean, variance, counter
    norms = {
        f"{path}.{key}"
        for path, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }
    assert set(personal) == norms
    assert batchnorm_statistics(model, "shared") == []
    assert len(batchnorm_statistics(model, "personal")) == 20


def test_fixed_stays_fixed() -> None:
    model = make("cnn")
    model.set_group("backbone", "fixed")
    apply_policy(model, "local")
    assert model.names("personal") == ()


@pytest.mark.parametrize("policy", ["average", "pooled"])
def test_the_other_policies_share(policy: str) -> None:
    model = make()
    apply_policy(model, policy)
    assert model.names("personal") == ()


def test_unknown_policy_is_named() -> None:
    with pytest.raises(FedltError, match="unknown policy 'locl'; nearest: 'local'"):
        apply_policy(make("cnn"), "locl")
