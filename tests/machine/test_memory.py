"""Blocks of memory: found where they are, never where they are not, and without effect on bits."""

from __future__ import annotations

import pickle

import pytest
import torch

from fedlt.flower.records import array_record, tensors_of
from fedlt.machine.memory import Layout, Pieces, find_block


@pytest.fixture
def loose():
    """Tensors of awkward sizes that lie apart."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"a": (5, 3), "b": (), "c": (17,), "square": (4, 4), "empty": (0, 2)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def packed(loose):
    return Layout.of(loose).fill(loose)


def same(first, second):
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_block_holds_copies_with_zeros_between(loose, packed):
    same(packed, loose)
    layout, block = find_block(packed)
    assert block.shape == (16 + 16 + 32 + 16,)  # 15, 1, 17, 16 and 0 entries in lines of 16
    assert torch.count_nonzero(block) == 15 + 1 + 17 + 16
    same(layout.views(block), loose)
    packed["a"].zero_()
    assert torch.count_nonzero(block[:16]) == 0


def test_layout_leaves_out_other_number_types(loose):
    mixed = {"n": torch.tensor(3), "double": torch.zeros(2, dtype=torch.float64), **loose}
    assert Layout.of(mixed).names == tuple(loose)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.update(square=t["square"].t()),  # same place, same shape, other order
        lambda t: t.update(a=t["a"].clone()),
        lambda t: t.update(a=t["c"][:15].view(5, 3)),
        lambda t: t.update(square=t["square"].view(2, 8)),
        lambda t: t.pop("b"),
    ],
)
def test_a_spoilt_block_is_not_found(packed, spoil):
    assert find_block(packed) is not None
    spoil(packed)
    assert find_block(packed) is None


def test_loose_tensors_and_none_have_no_block(loose):
    assert find_block(loose) is None
    assert find_block({}) is None
    assert find_block({"part": torch.zeros(8)[2:4]}) is None  # a view, but of no block


def test_further_tensors_beside_a_block_are_pieces_of_their_own(packed):
    pieces = Pieces({**packed, "extra": torch.ones(2)})
    assert [tuple(piece.shape) for piece in pieces.pieces] == [(80,), (2,)]
    same(pieces.tensors(), {**packed, "extra": torch.ones(2)})


@pytest.mark.parametrize("first", ["packed", "loose"])
@pytest.mark.parametrize("second", ["packed", "loose"])
def test_cut_gives_the_same_pieces_wherever_tensors_lie(request, first, second):
    held = Pieces({**request.getfixturevalue(first), "extra": torch.ones(2)})
    given = {**request.getfixturevalue(second), "extra": torch.ones(2)}
    cut = held.cut(given)
    assert [piece.shape for piece in cut] == [piece.shape for piece in held.pieces]
    total = [a + b for a, b in zip(held.pieces, cut, strict=True)]
    held.pieces = total
    same(held.tensors(), {name: 2 * tensor for name, tensor in given.items()})


def test_cut_refuses_other_names_and_shapes(packed, loose):
    for held in (Pieces(packed), Pieces(loose)):
        assert held.cut({**loose, "more": torch.zeros(1)}) is None
        assert held.cut({**packed, "a": torch.zeros(3, 5)}) is None
        assert held.cut({name: loose[name] for name in ("a", "b")}) is None


@pytest.mark.parametrize("lie", ["packed", "loose"])
def test_a_pickled_record_keeps_names_order_and_values(request, lie):
    tensors = {"n": torch.tensor(3), **request.getfixturevalue(lie), "z": torch.ones(2)}
    ordered = {**{k: v for k, v in tensors.items() if k != "n"}, "n": tensors["n"]}
    buffers = []
    data = pickle.dumps(array_record(ordered), protocol=5, buffer_callback=buffers.append)
    back = tensors_of(pickle.loads(data, buffers=buffers))
    same(back, ordered)
    block_and_rest, apart = 3, len(ordered)
    assert len(buffers) == (block_and_rest if lie == "packed" else apart)
    assert (find_block(back) is not None) == (lie == "packed")
