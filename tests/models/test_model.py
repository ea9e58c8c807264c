"""Model: groups, names, live state, loading, copies."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from fedlt.errors import FedltError
from fedlt.models import FixedHead, LinearHead, Model, build_model


class Streams(nn.Module):
    """Two streams, three features: per channel mean, and twice that. One parameter per stream."""

    num_features = 3
    num_streams = 2

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("constant", torch.ones(5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain[:, None] * x.mean((2, 3)).unsqueeze(1)


@pytest.fixture
def model() -> Model:
    made = build_model("cnn", image_shape=(1, 8, 8), num_classes=4, width=2, seed=3)
    made.add_head("main", LinearHead(8, 4))
    made.add_head("frame", FixedHead(torch.eye(8)[:4]))
    made.add_head("own", LinearHead(8, 4, bias=False), group="personal")
    return made


def test_streams_pass_through_heads_on_the_last_axis() -> None:
    model = Model(Streams(), 2)
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    model.add_head("h", FixedHead(weight))
    images = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    # features: stream 0 (1, 2, 4), stream 1 (2, 4, 8); logits: (1, 6) and (2, 12)
    assert model.features(images).tolist() == [[[1, 2, 4], [2, 4, 8]]]
    assert model(images).tolist() == [[[1, 6], [2, 12]]]
    assert (model.num_streams, model.num_features, model.num_classes) == (2, 3, 2)


def test_names_follow_state_dict_and_groups_partition_them(model: Model) -> None:
    assert model.names() == tuple(model.state_dict())
    groups = [model.names(group) for group in ("shared", "personal", "fixed")]
    assert sorted(name for names in groups for name in names) == sorted(model.state_dict())
    assert groups[1] == ("heads.own.weight",)
    assert groups[2] == ("heads.frame.weight",)
    assert set(model.parameter_names()) == {name for name, _ in model.named_parameters()}
    assert set(model.buffer_names()) == {name for name, _ in model.named_buffers()}
    assert len(model.integer_names("shared")) == 3
    assert all(name.endswith("num_batches_tracked") for name in model.integer_names())


def test_a_later_declaration_replaces_those_under_it(model: Model) -> None:
    model.set_group("backbone", "personal")
    model.set_group("backbone.layers.0", "shared")
    assert model.group_of("backbone.layers.0.weight") == "shared"
    assert model.group_of("backbone.layers.4.weight") == "personal"
    model.set_group("", "shared")
    assert model.group_of("backbone.layers.4.weight") == "shared"
    model.set_group("heads", "personal")
    assert model.group_of("heads.main.weight") == "personal"
    with pytest.raises(FedltError, match=r"nothing lies under 'backbone\.lay'"):
        model.set_group("backbone.lay", "shared")


def test_fixed_parameters_need_no_gradient(model: Model) -> None:
    model.add_head("still", LinearHead(8, 4), group="fixed")
    assert not any(p.requires_grad for p in model.heads["still"].parameters())
    assert all(p.requires_grad for p in model.heads["main"].parameters())


def test_forward_uses_the_first_head(model: Model) -> None:
    images = torch.rand(2, 1, 8, 8)
    model.eval()
    assert torch.equal(model(images), model.heads["main"](model.features(images)))


def test_transient_buffers_have_no_group_and_tied_tensors_one_name() -> None:
    model = Model(Streams(), 2)
    head = LinearHead(3, 2)
    model.add_head("a", head)
    model.add_head("b", head)
    expected = ("backbone.gain", "backbone.count", "heads.a.weight", "heads.a.bias")
    assert model.names() == expected
    assert model.integer_names() == ("backbone.count",)


def test_state_is_live_and_the_dictionary_is_the_callers(model: Model) -> None:
    state = model.state()
    with torch.no_grad():
        model.heads["main"].weight.fill_(7.0)
    assert state["heads.main.weight"].eq(7).all()
    assert not any(tensor.requires_grad for tensor in state.values())
    state.clear()
    assert model.state()


def test_load_overwrites_everything_and_reads_read_only_memory(model: Model) -> None:
    sources = {}
    for number, (name, tensor) in enumerate(model.state().items()):
        array = np.full(tensor.shape, number, dtype=tensor.numpy().dtype)
        buffer = torch.frombuffer(bytearray(array.tobytes()), dtype=tensor.dtype)
        sources[name] = buffer.view(tensor.shape)
    model.load(sources)
    for number, tensor in enumerate(model.state_dict().values()):
        assert tensor.eq(number).all()
    assert all(p.grad_fn is None and p.is_leaf for p in model.parameters())


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_load_from_a_truly_read_only_array(model: Model) -> None:
    array = np.ones((4, 8), dtype=np.float32)
    array.flags.writeable = False
    model.load({"heads.own.weight": torch.from_numpy(array)}, ["heads.own.weight"])
    with torch.no_grad():
        model.heads["own"].weight.add_(1)
    assert array.max() == 1


def test_load_of_some_names_leaves_the_rest(model: Model) -> None:
    before = {name: tensor.clone() for name, tensor in model.state().items()}
    shared = model.names("shared")
    extras = {"control/x": torch.zeros(3)}
    model.load({**{n: before[n] + 1 for n in shared}, **extras}, shared)
    for name, tensor in model.state().items():
        assert torch.equal(tensor, before[name] + (name in shared))


def test_load_refuses_and_then_has_written_nothing(model: Model) -> None:
    values = {name: tensor + 1 for name, tensor in model.state().items()}
    before = {name: tensor.clone() for name, tensor in model.state().items()}
    bad_shape = {**values, "heads.own.weight": torch.zeros(4, 1)}
    bad_kind = {**values, "backbone.layers.2.num_batches_tracked": torch.tensor(1.5)}
    missing = {name: value for name, value in values.items() if name != "heads.own.weight"}
    cases = [
        (bad_shape, None, r"'heads.own.weight' is torch.float32 \(4, 8\), got .* \(4, 1\)"),
        (bad_kind, None, "'backbone.layers.2.num_batches_tracked' is torch.int64"),
        (missing, None, "no value given for 'heads.own.weight'"),
        ({**values, "heads.main.wieght": torch.zeros(1)}, None, "nearest: 'heads.main.weight'"),
        (values, ["heads.main.weight", "nothing"], "no parameter or buffer 'nothing'"),
    ]
    for tensors, names, message in cases:
        with pytest.raises(FedltError, match=message):
            model.load(tensors, names)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state().items())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_share_no_memory_and_keep_groups(model: Model, clone) -> None:
    model.state()
    other = clone(model)
    other.load({name: tensor + 1 for name, tensor in model.state().items()})
    for name, tensor in model.state().items():
        assert torch.equal(other.state()[name], tensor + 1)
        assert other.group_of(name) == model.group_of(name)
    assert torch.equal(other.heads["main"].bias, model.heads["main"].bias + 1)


def test_state_follows_tensors_that_move(model: Model) -> None:
    model.state()
    model.backbone.to(memory_format=torch.channels_last)
    model.double()
    assert model.state()["heads.main.weight"].dtype == torch.float64
    for name, tensor in model.state().items():
        assert tensor.data_ptr() == model.state_dict()[name].data_ptr()


def test_names_follow_a_replaced_backbone(model: Model) -> None:
    model.names()
    model.backbone = Streams()
    assert model.names("shared")[:2] == ("backbone.gain", "backbone.count")
    assert model.num_streams == 2


def test_shapes(model: Model) -> None:
    assert model.shapes()["heads.frame.weight"] == (4, 8)
    assert list(model.shapes()) == list(model.names())


def test_mistakes_are_named(model: Model) -> None:
    with pytest.raises(FedltError, match="in_features is 9, the model has 8"):
        model.add_head("wide", LinearHead(9, 4))
    with pytest.raises(FedltError, match="out_features is 5, the model has 4"):
        model.add_head("many", FixedHead(torch.zeros(5, 8)))
    for name in ("main", "a.b", "keys"):
        with pytest.raises(FedltError, match="must be a new identifier"):
            model.add_head(name, LinearHead(8, 4))
    with pytest.raises(FedltError, match="nearest: 'shared'"):
        model.set_group("backbone", "shard")  # type: ignore[arg-type]
    with pytest.raises(FedltError, match="no parameter or buffer 'x'"):
        model.group_of("x")
    with pytest.raises(FedltError, match="needs an integer attribute 'num_features'"):
        Model(nn.Linear(2, 2), 4)
    with pytest.raises(FedltError, match="has no head"):
        Model(Streams(), 2)(torch.zeros(1, 3, 2, 2))
    with pytest.raises(FedltError, match="at least 2"):
        Model(Streams(), 1)
