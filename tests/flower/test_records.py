"""Tensors in Flower records: no copies inside a process, plain arrays outside."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam

from fedlt.flower.records import TensorArray, array_record, tensors_of, with_content

pytestmark = pytest.mark.usefixtures("identity")


def read_only() -> torch.Tensor:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


TENSORS = {
    "plain": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(7),
    "float-scalar": torch.tensor(0.5),
    "int64": torch.tensor([2**60, -1]),
    "bool": torch.tensor([True, False]),
    "half": torch.tensor([1.5, -0.0], dtype=torch.float16),
    "double": torch.tensor([1e300, float("nan")], dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "slice": torch.arange(10.0)[2:8:2],
    "expanded": torch.tensor([3.0]).expand(4),
    "channels-last": torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last),
    "read-only": read_only(),
    "grad": torch.ones(2, requires_grad=True),
}
each = pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    whole = found.dtype == expected.dtype and found.shape == expected.shape
    return whole and torch.equal(found.nan_to_num(9), expected.detach().nan_to_num(9))


@each
def test_nothing_is_copied_inside_a_process(tensor):
    record = array_record({"t": tensor})
    message = Message(RecordDict({"arrays": record, "m": MetricRecord({"a": 1})}), 3, "train")
    found = tensors_of(message.content.array_records["arrays"])["t"]
    assert found.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    assert found.stride() == tensor.stride()
    assert not found.requires_grad
    assert isinstance(record["t"], TensorArray)


@each
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickling_keeps_values(tensor, protocol):
    message = RecordDict({"arrays": array_record({"t": tensor})})
    copy = pickle.loads(pickle.dumps(message, protocol=protocol))
    assert isinstance(copy["arrays"]["t"], TensorArray)
    assert same(tensors_of(copy["arrays"])["t"], tensor)


def test_pickling_hands_large_buffers_over_out_of_band():
    """What Ray does: the pickle stays small, the memory is handed over as it is."""
    tensor = torch.arange(100_000.0)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(array_record({"t": tensor}), protocol=5, buffer_callback=buffers.append)
    assert len(data) < 2000
    assert sum(len(buffer.raw()) for buffer in buffers) == 400_000
    copy = tensors_of(pickle.loads(data, buffers=[buffer.raw() for buffer in buffers]))["t"]
    assert copy.data_ptr() == tensor.data_ptr()


@each
def test_the_wire_form_is_flowers_own(tensor):
    """deflate gives what a plain Array of the same values gives; inflate gives a plain Array."""
    array = array_record({"t": tensor})["t"]
    plain = Array(tensor.detach().numpy())
    assert array.dtype == plain.dtype
    assert tuple(array.shape) == tuple(plain.shape)
    assert array.stype == plain.stype
    assert type(array).__qualname__ == "Array"
    assert array.object_id == plain.object_id  # a hash of the wire form
    assert array.deflate() == plain.deflate()
    children = {child.object_id: child for child in (array.children or {}).values()}
    copy = Array.inflate(array.deflate(), children)
    assert type(copy) is Array
    assert same(torch.from_numpy(copy.numpy()), tensor)


def test_a_whole_record_survives_deflating():
    record = array_record(TENSORS)
    children = dict(record.children)
    copy = ArrayRecord.inflate(record.deflate(), children)
    for name, tensor in TENSORS.items():
        assert same(tensors_of(copy)[name], tensor)
    assert (
        record.count_bytes()
        == ArrayRecord(
            {name: Array(tensor.detach().numpy()) for name, tensor in TENSORS.items()}
        ).count_bytes()
    )


def test_readers_accept_plain_arrays_and_state_dicts():
    plain = ArrayRecord({"a": Array(np.arange(3, dtype=np.float32)), "b": Array(np.array(5))})
    found = tensors_of(plain)
    assert found["a"].tolist() == [0.0, 1.0, 2.0]
    assert found["b"].item() == 5
    record = ArrayRecord(torch.nn.Linear(2, 2).state_dict())
    assert set(tensors_of(record)) == {"weight", "bias"}


def test_flowers_readers_accept_our_arrays():
    record = array_record({"a": TENSORS["transposed"], "b": TENSORS["int64"]})
    first, second = record.to_numpy_ndarrays()
    assert first.tolist() == TENSORS["transposed"].tolist()
    assert second.tolist() == [2**60, -1]
    state = record.to_torch_state_dict()
    assert same(state["a"], TENSORS["transposed"])


def test_fedadam_reads_our_arrays():
    """One FedAdam step by hand (Reddi et al., ICLR 2021, algorithm 2, with bias correction).

    Two clients at 1 and 3 with weights 1 and 3: mean 2.5, start 0, so delta = 2.5,
    m = 0.1 * 2.5 = 0.25, v = 0.01 * 6.25 = 0.0625; round 1 scales eta = 0.1 by
    sqrt(1 - 0.99^2) / (1 - 0.9^2), and divides by sqrt(v) + 0.001 = 0.251.
    """
    strategy = FedAdam(min_train_nodes=2)
    strategy.current_arrays = {"w": np.zeros(3, dtype=np.float32)}
    replies = []
    for node, value in ((1, 1.0), (2, 3.0)):
        metrics = MetricRecord({"num-examples": value})
        arrays = array_record({"w": torch.full((3,), value)})
        replies.append(Message(RecordDict({"arrays": arrays, "metrics": metrics}), node, "train"))
    record, _ = strategy.aggregate_train(1, replies)
    step = 0.1 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2) * 0.25 / 0.251
    assert tensors_of(record)["w"].tolist() == pytest.approx([step] * 3, rel=1e-5)


def test_with_content_keeps_the_metadata():
    message = Message(RecordDict({"a": ConfigRecord({"x": 1})}), 3, "train", group_id="7")
    other = with_content(message, RecordDict({"b": ConfigRecord({"y": 2})}))
    assert list(other.content) == ["b"]
    assert list(message.content) == ["a"]
    assert (other.metadata.dst_node_id, other.metadata.group_id) == (3, "7")
    assert other.metadata.message_type == "train"
