"""Memory that the driver shares with its workers: what fits, what is kept, who can read it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from by_hand import play_round

from fedlt.engines.ray import RayEngine
from fedlt.engines.shared_memory import ANSWERS, SIZE, AnswerSlots, Areas, SharedMemory, SharedValue
from fedlt.flower.server_half import make_server_half

READ = """
import pickle, sys
from fedlt.engines.shared_memory import open_memory
address, stored = pickle.loads(sys.stdin.buffer.read())
memory = open_memory(address)
print("nothing" if memory is None else stored.value(memory)["b"].tolist())
"""
VALUE = {"a": np.arange(1000.0), "b": np.arange(3), "c": "word"}


@pytest.fixture(scope="module")
def memory():
    found = SharedMemory.make()
    if found is None:
        pytest.skip("the system has no such memory")
    return found


def test_a_value_comes_back_without_a_copy(memory):
    stored = SharedValue.of(VALUE, memory.bytes, (4096, 9000))
    found = stored.value(memory.bytes)
    assert found["c"] == "word"
    assert np.array_equal(found["a"], VALUE["a"])
    assert not found["a"].flags.writeable
    memory.bytes[4096 : 4096 + 8] = np.float64(7).tobytes()
    assert found["a"][0] == 7


def test_what_does_not_fit_is_not_written(memory):
    """8,000 bytes of the first array, and 24 of the second on the next cache line: 8,024."""
    before = memory.bytes[:20000]
    assert SharedValue.of(VALUE, memory.bytes, (0, 7999)) is None
    assert memory.bytes[:20000] == before
    assert SharedValue.of(VALUE, memory.bytes, (0, 8023)) is None
    assert SharedValue.of(VALUE, memory.bytes, (0, 8024)).buffers == [(0, 8000), (8000, 24)]


@pytest.mark.parametrize(
    ("field", "shift"), [("file", 0), ("file", 10000), ("inode", 1)],
    ids=["the-file", "no-such-file", "another-file"],
)  # fmt: skip
def test_another_process_reads_it(memory, field, shift):
    address = memory.address._replace(**{field: getattr(memory.address, field) + shift})
    stored = SharedValue.of(VALUE, memory.bytes, (8192, 9000))
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=pickle.dumps((address, stored)),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == ("nothing" if shift else "[0, 1, 2]")


def test_slots_are_given_back_and_taken_again():
    slots = AnswerSlots()
    slots.begin(100_000_000)
    first, second = slots.take(0), slots.take(1)
    assert slots.take(0) == first != second
    assert first[1] == second[1] >= 100_000_000
    assert slots.take(2) is None  # two of them fill the half for answers
    assert max(sum(first), sum(second)) <= ANSWERS
    slots.give_back(0)
    assert slots.take(2) == first
    slots.give_back(1)
    slots.give_back(2)
    slots.begin(1000)
    assert slots.take(0)[1] < 100_000_000


def test_no_size_no_place():
    slots = AnswerSlots()
    slots.begin(0)
    assert slots.take(0) is None
    slots.begin(ANSWERS)
    assert slots.take(0) is None


def test_after_a_list_that_was_given_up_no_place_is_given():
    """A worker may still write its answer there."""
    slots = AnswerSlots()
    slots.begin(1000)
    slots.take(0)
    slots.begin(1000)
    assert slots.take(1) is None


def test_areas_hold_one_value_a_name(memory):
    areas = Areas()
    one = areas.write("one", VALUE, memory)
    two = areas.write("two", VALUE, memory)
    assert one.buffers[0][0] >= ANSWERS
    assert sum(one.buffers[-1]) <= two.buffers[0][0]
    other = areas.write("one", VALUE | {"a": -VALUE["a"]}, memory)
    assert other.buffers == one.buffers
    assert np.array_equal(other.value(memory.bytes)["a"], -VALUE["a"])
    assert np.array_equal(two.value(memory.bytes)["a"], VALUE["a"])
    larger = areas.write("one", VALUE | {"a": np.arange(3000.0)}, memory)
    assert larger.buffers[0][0] >= sum(two.buffers[-1])
    assert np.array_equal(two.value(memory.bytes)["a"], VALUE["a"])
    assert areas.write("three", np.zeros(SIZE - ANSWERS, np.uint8), memory) is None


def test_closed_memory_stays_for_those_who_read_it():
    memory = SharedMemory.make()
    found = SharedValue.of(VALUE, memory.bytes, (0, 9000)).value(memory.bytes)
    memory.close()
    assert found["b"].tolist() == [0, 1, 2]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(memory.address.file)


@pytest.mark.ray
@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "scaffold"])
def test_a_system_without_it_gives_the_same_bits(lab, monkeypatch, strategy):
    """Four rounds each: from the second one on, answers lie in the memory where there is one."""
    federation = lab.federation(
        strategy=strategy, engine={"name": "ray", "workers": 2}, clients_per_round=None
    )
    found = []
    for is_shared in (True, False):
        server = make_server_half(federation.view)
        with RayEngine(federation) as engine:
            if not is_shared:
                monkeypatch.setattr(SharedMemory, "make", lambda: None)
            for round_ in range(1, 5):
                play_round(server, engine, round_)
            assert (engine._memory is not None) == is_shared
            assert bool(engine._slots._size) == is_shared
        found.append({n: t.numpy().tobytes() for n, t in server.state.broadcast.items()})
    assert found[0] == found[1]


@pytest.mark.ray
def test_two_engines_at_once_do_not_meet(lab):
    """Each has memory of its own: rounds in turn give the bits of rounds one after the other."""
    parties = [
        lab.federation(strategy="fedloge", seed=seed, engine={"name": "ray", "workers": 1})
        for seed in (1, 2)
    ]

    def play(servers, engines):
        for round_ in range(1, 5):
            for server, engine in zip(servers, engines, strict=True):
                play_round(server, engine, round_)
        return [{n: t.numpy().tobytes() for n, t in s.state.broadcast.items()} for s in servers]

    servers = [make_server_half(one.view) for one in parties]
    with RayEngine(parties[0]) as first, RayEngine(parties[1]) as second:
        together = play(servers, [first, second])
    alone = []
    for one in parties:
        with RayEngine(one) as engine:
            alone += play([make_server_half(one.view)], [engine])
    assert together == alone
