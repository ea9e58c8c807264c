"""Backbones: published sizes, shapes, and torchvision as a second implementation."""

import pytest
import torch
import torchvision
from torch import nn

from fedlt.errors import FedltError
from fedlt.models import BACKBONES, LinearHead, build_backbone, build_model
from fedlt.models.layers import channels_last_on_cpu, group_count
from fedlt.models.resnet import PadShortcut


def make(name: str, channels: int = 3, size: int = 32, **options) -> nn.Module:
    return build_backbone(name, image_shape=(channels, size, size), **options)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # He et al., table 6: 0.27 M and 0.46 M; the exact values by hand for ResNet-20: stem
        # 432 + 32, stages 6 * (2304 + 32), 4608 + 64 + 5 * (9216 + 64), 18432 + 128 +
        # 5 * (36864 + 128), classifier 650, which sum to 269,722
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        # torchvision's 11,689,512 and 21,797,672, with the 7x7 stem (9,408) and the 1000-class
        # classifier (513,000) replaced by a 3x3 stem (1,728) and 10 classes (5,130)
        ("resnet18", 11_689_512 - 9_408 + 1_728 - 513_000 + 5_130),
        ("resnet34", 21_797_672 - 9_408 + 1_728 - 513_000 + 5_130),
        # torchvision's 25,557,032, with 10 classes instead of 1000
        ("resnet50", 25_557_032 - 2_049_000 + 20_490),
        # 27w + 18w^2 + 72w^2 + 2(w + 2w + 4w) + 40w + 10 at w = 16
        # 3 * 32^2 * w + 2w + 10w + 10 at w = 200
        ("mlp", 3_072 * 200 + 400 + 2_010),
        ("cnn", 27 * 16 + 90 * 256 + 14 * 16 + 650),
    ],
)
def test_parameter_counts(name: str, published: int) -> None:
    model = build_model(name, image_shape=(3, 32, 32), num_classes=10, seed=1)
    model.add_head("main", LinearHead(model.num_features, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize(
    ("name", "options", "shape", "published"),
    [
        # FedNTD's CIFAR-10 network: 5x5 convolutions with biases, padding 2, a head of 512 x 10
        ("fedavg_cnn", {}, (3, 32), 2_432 + 51_264 + (64 * 8**2 + 1) * 512 + 5_130),
        ("fedavg_cnn", {}, (3, 32), 2_156_490),
        ("fedavg_cnn", {}, (1, 28), 1_663_370),  # the paper's MNIST CNN, section 3
        ("mlp", {"depth": 2}, (1, 28), 199_210),  # the paper's 2NN
    ],
)
def test_parameter_counts_of_networks_without_norm(name, options, shape, published):
    channels, size = shape
    model = build_model(
        name, image_shape=(channels, size, size), num_classes=10, norm="none", seed=1, **options
    )
    model.add_head("main", LinearHead(model.num_features, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_fedavg_cnn_is_its_plain_torch_network() -> None:
    ours = make("fedavg_cnn", channels=1, size=11, width=2, norm="none")
    theirs = nn.Sequential(
        *(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(2, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, 32), nn.ReLU()),
    )
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(3, 1, 11, 11)
    torch.testing.assert_close(ours(images)[:, 0], theirs(images))


def test_two_hidden_layers_are_their_formula() -> None:
    backbone = make("mlp", channels=2, size=3, width=5, norm="none", depth=2)
    first, c1, second, c2 = backbone.state_dict().values()
    images = torch.randn(4, 2, 3, 3)
    units = (images.reshape(4, 18) @ first.T + c1).clamp(min=0)
    torch.testing.assert_close(backbone(images)[:, 0], (units @ second.T + c2).clamp(min=0))


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "identity"])
def test_every_backbone_takes_every_image_size(name: str, norm: str) -> None:
    width = 6
    backbone = make(name, width=width, norm=norm)
    published = {"cnn": 4, "mlp": 1, "resnet18": 8, "resnet34": 8, "fedavg_cnn": 16}
    published |= {"resnet8": 4, "resnet20": 4, "resnet32": 4, "resnet10": 8, "resnet50": 32}
    features = published[name] * width if name in published else backbone.num_features
    assert backbone.num_features == features
    assert backbone.num_streams == 1
    for size in (32,) if name in ("mlp", "fedavg_cnn") else (8, 28, 32):
        found = backbone(torch.rand(2, 3, size, size))
        assert found.shape == (2, 1, features)
        assert found.isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_resnet_agrees_with_torchvision(name: str) -> None:
    """Our weights in torchvision's network, with the CIFAR stem, give the same features."""
    ours = make(name)
    theirs = getattr(torchvision.models, name)(weights=None)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool, theirs.fc = nn.Identity(), nn.Identity()
    names = list(theirs.state_dict())
    theirs.load_state_dict(dict(zip(names, ours.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(ours(images)[:, 0], theirs(images), rtol=1e-4, atol=1e-4)


def test_mlp_features_are_those_of_its_formula() -> None:
    """relu(W x / sqrt(1 + eps)): a norm of mean 0 and variance 1, scale 1, shift 0."""
    backbone = make("mlp", channels=2, size=3, width=5).eval()
    images = torch.randn(4, 2, 3, 3)
    units = images.reshape(4, 18) @ backbone.state_dict()["hidden.weight"].T
    expected = units.clamp(min=0) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(backbone(images)[:, 0], expected)


def test_option_a_shortcut_pads_both_sides() -> None:
    """16 -> 24 channels pads 4 + 4 zeros, and every second pixel is kept."""
    x = torch.arange(16 * 16.0).view(1, 16, 4, 4)
    y = PadShortcut(16, 24, stride=2)(x)
    assert y.shape == (1, 24, 2, 2)
    assert y[0, :4].eq(0).all()
    assert y[0, 20:].eq(0).all()
    assert torch.equal(y[0, 4:20], x[0][:, [0, 2]][:, :, [0, 2]])


def test_cnn_features_of_a_constant_are_its_analytic_value() -> None:
    """1x1-like kernels (centre only, value 2), norms at their start in eval mode, input 1.

    Every block doubles the sum over its input channels: 2, then 2 * w * 2, then 2 * 2w * 4w, with
    the eval norm dividing by sqrt(1 + 1e-5) each time. With w = 1: 2, 4, 16.
    """
    backbone = make("cnn", channels=1, size=8, width=1).eval()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            module.weight.data[:, :, 1, 1] = 2.0
    expected = torch.full((1, 1, 4), 16.0 / (1 + 1e-5) ** 1.5)
    torch.testing.assert_close(backbone(torch.ones(1, 1, 8, 8)), expected)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (7, 1), (6, 1), (10, 2), (16, 4), (24, 6), (128, 32), (512, 32)],
)
def test_group_count(channels: int, groups: int) -> None:
    assert group_count(channels) == groups
    assert channels % groups == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_changes_layout_only(channels: int) -> None:
    x = torch.rand(2, channels, 4, 6)
    y = channels_last_on_cpu(x)
    assert torch.equal(x, y)
    assert y.stride() == (channels * 24, 1, channels * 6, channels)
    assert channels_last_on_cpu(y).data_ptr() == y.data_ptr()


def test_weights_depend_on_the_seed_only() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.rand(3)
        model = build_model("resnet8", image_shape=(1, 8, 8), num_classes=4, seed=seed)
        model.add_head("main", LinearHead(model.num_features, 4))
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_convolutions_start_with_he_variance() -> None:
    """fan-out of 64 channels times 9: standard deviation sqrt(2 / 576), 36,864 draws (1 %)."""
    weight = make("resnet18").stages[0][0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)


def test_a_backbone_from_a_file(tmp_path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "from torch import nn\n"
        "class Mine(nn.Module):\n"
        "    num_streams = 1\n"
        "    def __init__(self, *, in_channels, image_size, width, norm):\n"
        "        super().__init__()\n"
        "        self.num_features = in_channels * image_size\n"
        "    def forward(self, x):\n"
        "        return x.mean(3).flatten(1).unsqueeze(1)\n"
    )
    model = build_model(f"{source}:Mine", image_shape=(2, 5, 5), num_classes=3, seed=1)
    assert model.features(torch.rand(4, 2, 5, 5)).shape == (4, 1, 10)


def test_mistakes_are_named() -> None:
    with pytest.raises(FedltError, match=r"unknown backbone 'resnet19'; nearest: 'resnet18'"):
        make("resnet19")
    with pytest.raises(FedltError, match=r"cnn takes no norm 'layer'.*known: batch, group"):
        make("cnn", norm="layer")
    with pytest.raises(FedltError, match=r"resnet8 takes no norm 'none'.*known: batch, group"):
        make("resnet8", norm="none")
    with pytest.raises(FedltError, match=r"model.depth: is for mlp, cnn has the depth of its name"):
        make("cnn", depth=2)
    with pytest.raises(FedltError, match="at least 4 pixels a side, got 2 x 2"):
        make("cnn", size=2)
    with pytest.raises(FedltError, match="width 0"):
        make("cnn", width=0)


MINE = """
from torch import nn
def flat(image_shape, width=6):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * 25, width))
class Mine(nn.Sequential):
    def __init__(self, in_channels, width=6):
        super().__init__(nn.Conv2d(in_channels, width, 5), nn.Flatten())
def any_keys(**keys):
    return nn.Sequential(nn.Flatten(), nn.Linear(50, keys.get("width", 6)))
def required(image_shape, width):
    return nn.Sequential(nn.Flatten(), nn.Linear(50, 6 if width is None else width))
def broken(image_shape, norm, width=6, hidden=3):
    raise TypeError("no such layer")
"""


@pytest.mark.parametrize("name", ["flat", "Mine", "any_keys", "required"])
def test_a_width_that_the_file_does_not_give_is_the_callables_own(tmp_path, name) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    source = f"{tmp_path / 'mine.py'}:{name}"
    for width, expected in ((None, 6), (4, 4)):
        built = build_backbone(source, image_shape=(2, 5, 5), width=width)
        assert built.num_features == expected


def test_a_callable_that_fails_shows_its_arguments(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    source, options = f"{tmp_path / 'mine.py'}:broken", {"hidden": 9}
    expected = r"fails, called with \(image_shape=\(2, 5, 5\), norm='batch', hidden=9\): TypeError"
    with pytest.raises(FedltError, match=expected):
        build_backbone(source, image_shape=(2, 5, 5), options=options)
    with pytest.raises(FedltError, match=r"model.options: .* has no option 'width'; known: hidden"):
        build_backbone(source, image_shape=(2, 5, 5), options={"width": 9})


@pytest.mark.parametrize("name", ["cnn", "mlp", "fedavg_cnn", "resnet8", "resnet18"])
@pytest.mark.parametrize("shape", [(1, 8, 20), (4, 20, 8), (2, 13, 9)])
def test_images_of_any_height_width_and_channels(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(name, image_shape=shape, num_classes=3, width=2, seed=1).eval()
    images = torch.rand(2, *shape)
    assert model.image_shape == shape
    features = model.features(images)
    assert features.shape == (2, 1, model.num_features)
    changed = images.clone()
    changed[1, -1, -1, -1] += 9  # the last pixel is seen, the other image is not changed
    if name in ("mlp", "cnn"):
        assert not torch.equal(model.features(changed)[1], features[1])
    torch.testing.assert_close(model.features(changed)[0], features[0])


def test_a_users_backbone_says_by_its_parameters_which_sizes_it_takes(tmp_path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "from torch import nn\n"
        "def net(size):\n"
        "    made = nn.Flatten()\n"
        "    made.num_streams, made.num_features = 1, size\n"
        "    return made\n"
        "def square(in_channels, image_size, width, norm):\n"
        "    return net(in_channels * image_size**2)\n"
        "def any_shape(image_shape, width, norm):\n"
        "    return net(image_shape[0] * image_shape[1] * image_shape[2])\n"
    )
    for name in ("square", "any_shape"):
        built = build_backbone(f"{source}:{name}", image_shape=(2, 5, 5))
        assert built.num_features == 50
    assert build_backbone(f"{source}:any_shape", image_shape=(2, 5, 3)).num_features == 30
    with pytest.raises(FedltError, match="images are 5 x 3; give it a parameter image_shape"):
        build_backbone(f"{source}:square", image_shape=(2, 5, 3))
