"""Memory that the driver shares with its workers: what fits, what is kept, who can read it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from by_hand import play_round

from fedlt.engines.ray import RayEngine
from fedlt.engines.shared_memory import ANSWERS, AnswerPlaces, Areas, Placed, SharedMemory
from fedlt.flower.server_half import make_server_half

READ = """
import pickle, sys
from fedlt.engines.shared_memory import mapped
process, file, placed = pickle.loads(sys.stdin.buffer.read())
memory = mapped((process, file))
print("nothing" if memory is None else placed.value(memory)["b"].tolist())
"""
VALUE = {"a": np.arange(1000.0), "b": np.arange(3), "c": "word"}


@pytest.fixture(scope="module")
def memory():
    found = SharedMemory.make()
    if found is None:
        pytest.skip("the system has no such memory")
    return found


def test_a_value_comes_back_without_a_copy(memory):
    placed = Placed.of(VALUE, memory.bytes, (4096, 9000))
    found = placed.value(memory.bytes)
    assert found["c"] == "word"
    assert np.array_equal(found["a"], VALUE["a"])
    assert not found["a"].flags.writeable
    memory.bytes[4096 : 4096 + 8] = np.float64(7).tobytes()
    assert found["a"][0] == 7


def test_what_does_not_fit_is_not_written(memory):
    """8,000 bytes of the first array, and 24 of the second on the next cache line: 8,024."""
    before = memory.bytes[:20000]
    assert Placed.of(VALUE, memory.bytes, (0, 7999)) is None
    assert memory.bytes[:20000] == before
    assert Placed.of(VALUE, memory.bytes, (0, 8023)) is None
    assert Placed.of(VALUE, memory.bytes, (0, 8024)).places == [(0, 8000), (8000, 24)]


@pytest.mark.parametrize("shift", [0, 10000], ids=["the-file", "no-such-file"])
def test_another_process_reads_it(memory, shift):
    import pickle

    process, file = memory.address
    placed = Placed.of(VALUE, memory.bytes, (8192, 9000))
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=pickle.dumps((process, file + shift, placed)),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == ("nothing" if shift else "[0, 1, 2]")


def test_places_are_given_back_and_taken_again():
    places = AnswerPlaces()
    places.begin(100_000_000)
    first, second = places.take(0), places.take(1)
    assert places.take(0) == first != second
    assert first[1] == second[1] >= 100_000_000
    assert places.take(2) is None  # two of them fill the half for answers
    assert max(sum(first), sum(second)) <= ANSWERS
    places.give_back(0)
    assert places.take(2) == first
    places.give_back(1)
    places.give_back(2)
    places.begin(1000)
    assert places.take(0)[1] < 100_000_000


def test_no_size_no_place():
    places = AnswerPlaces()
    places.begin(0)
    assert places.take(0) is None
    places.begin(ANSWERS)
    assert places.take(0) is None


def test_after_a_list_that_was_given_up_no_place_is_given():
    """A worker may still write its answer there."""
    places = AnswerPlaces()
    places.begin(1000)
    places.take(0)
    places.begin(1000)
    assert places.take(1) is None


def test_areas_hold_one_value_a_name(memory):
    areas = Areas()
    one = areas.write("one", VALUE, memory)
    two = areas.write("two", VALUE, memory)
    assert one.places[0][0] >= ANSWERS
    assert sum(one.places[-1]) <= two.places[0][0]
    other = areas.write("one", VALUE | {"a": -VALUE["a"]}, memory)
    assert other.places == one.places
    assert np.array_equal(other.value(memory.bytes)["a"], -VALUE["a"])
    assert np.array_equal(two.value(memory.bytes)["a"], VALUE["a"])
    assert areas.write("one", VALUE | {"a": np.arange(3000.0)}, memory) is None


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
                monkeypatch.setattr(engine._start, "memory", None)
            for round_ in range(1, 5):
                play_round(server, engine, round_)
            assert (engine._memory is not None) == is_shared
            assert bool(engine._places._size) == is_shared
        found.append({n: t.numpy().tobytes() for n, t in server.state.broadcast.items()})
    assert found[0] == found[1]
