"""Personal states: what is kept, what goes to disk and comes back, and which files stay."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fedlt.errors import RunError
from fedlt.machine.memory import as_tensor
from fedlt.runs import personal_states as personal
from fedlt.runs.checkpoints import load_checkpoint, save_checkpoint, state_folder
from fedlt.runs.personal_states import PersonalStates, Snapshot


def state(value, size=4):
    return {"w": torch.full((size,), float(value)), "n": torch.tensor(value)}


def values(states):
    return {cid: own["n"].item() for cid, own in states.items()}


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def commit(states, changes):
    for cid, value in changes.items():
        states.stage(cid, state(value))
    states.commit(list(changes))


def checkpoint(states, folder, round):
    snapshot = states.flush()
    groups = {"personal": snapshot.table}
    save_checkpoint(folder, round=round, tensors=groups, meta={}, files=snapshot.files)


def resumed(folder, mib=1):
    found, states = load_checkpoint(folder), PersonalStates()
    states.spill_to(state_folder(folder), mib)
    states.restore(Snapshot(found.files, found.tensors["personal"]), round=found.round)
    return states


def test_only_what_is_committed_is_kept():
    states = PersonalStates()
    states.stage(3, state(30))
    states.stage(1, state(10))
    states.stage(1, state(11))  # a task that was run again
    assert len(states) == 0
    states.commit([1, 2])
    assert values(states) == {1: 11}
    commit(states, {3: 31, 1: 12})
    assert values(states) == {1: 12, 3: 31}
    assert list(states) == [1, 3]  # in the order of the first commits


@pytest.mark.parametrize("mib", [0, 1, 1000])
def test_the_budget_never_changes_a_state(tmp_path, monkeypatch, mib):
    """100 random steps against a plain dictionary; states of 100 kB, files of at most 300 kB."""
    monkeypatch.setattr(personal, "FILE_BYTES", 300_000)
    draw, expected = random.Random(mib), {}
    states = PersonalStates()
    states.spill_to(state_folder(tmp_path), mib)
    for step in range(1, 101):
        cohort = draw.sample(range(25), 5)
        for cid in cohort:
            states.stage(cid, state(1000 * step + cid, size=25_000))
        kept = [cid for cid in cohort if draw.random() < 0.8]
        states.commit(kept)
        expected |= {cid: 1000 * step + cid for cid in kept}
        assert states[kept[0] if kept else next(iter(states))]["w"].shape == (25_000,)
        if step % 7 == 0:
            checkpoint(states, tmp_path, step)
        if step % 50 == 0:
            checkpoint(states, tmp_path, step)
            states = resumed(tmp_path, mib)
        if step % 10 == 0:
            assert values(states) == expected
            assert list(states) == list(expected)
            assert all(own["w"].eq(own["n"]).all() for own in states.values())
    held = sum(t.nbytes for entry in states._resident for t in (entry.tensors or {}).values())
    assert held == states._bytes <= mib * 2**20


def test_a_checkpoint_writes_changed_states_only(tmp_path):
    states = PersonalStates()
    states.spill_to(state_folder(tmp_path), 100)
    commit(states, {cid: cid for cid in range(50)})
    checkpoint(states, tmp_path, 1)
    first = state_folder(tmp_path) / "round_000001.0.safetensors"
    stamp, size = first.stat().st_mtime_ns, first.stat().st_size
    commit(states, {7: 107})
    checkpoint(states, tmp_path, 2)
    assert names(state_folder(tmp_path)) == [first.name, "round_000002.0.safetensors"]
    assert first.stat().st_mtime_ns == stamp
    assert (state_folder(tmp_path) / "round_000002.0.safetensors").stat().st_size < size / 10
    checkpoint(states, tmp_path, 3)  # nothing changed
    assert len(names(state_folder(tmp_path))) == 2
    assert values(resumed(tmp_path)) == {cid: 107 if cid == 7 else cid for cid in range(50)}


def test_a_file_goes_when_no_checkpoint_names_it(tmp_path):
    """Clients 0 and 1 in turn: a file is out of date one round later, and goes two later."""
    states, folder = PersonalStates(), state_folder(tmp_path)
    states.spill_to(folder, 100)
    for round_ in range(1, 7):
        commit(states, {0: round_, 1: round_})
        checkpoint(states, tmp_path, round_)
        recent = range(max(1, round_ - 1), round_ + 1)
        assert names(folder) == [f"round_{number:06d}.0.safetensors" for number in recent]


def test_the_rest_of_a_stale_file_moves(tmp_path):
    """10 clients in one file; once 6 of them have newer states, the other 4 move with them."""
    states, folder = PersonalStates(), state_folder(tmp_path)
    states.spill_to(folder, 100)
    commit(states, {cid: cid for cid in range(10)})
    checkpoint(states, tmp_path, 1)
    states = resumed(tmp_path)  # nothing is in memory
    for round_, cids in enumerate((range(3), range(3, 6)), start=2):
        assert "round_000001.0.safetensors" in names(folder)
        commit(states, {cid: 100 + cid for cid in cids})
        checkpoint(states, tmp_path, round_)
    checkpoint(states, tmp_path, 4)
    assert names(folder) == ["round_000002.0.safetensors", "round_000003.0.safetensors"]
    expected = {cid: 100 + cid if cid < 6 else cid for cid in range(10)}
    assert values(resumed(tmp_path)) == expected


def test_files_between_two_checkpoints_go_as_soon_as_they_are_out_of_date(tmp_path):
    states, folder = PersonalStates(), state_folder(tmp_path)
    states.spill_to(folder, 0)
    for round_ in range(5):
        commit(states, {0: round_, 1: round_})
        assert len(names(folder)) == 2
    checkpoint(states, tmp_path, 5)
    saved = names(folder)
    for round_ in range(5, 8):
        commit(states, {0: round_, 1: round_})
        assert len(names(folder)) == 4
        assert set(saved) < set(names(folder))  # the checkpoint needs them
    assert values(states) == {0: 7, 1: 7}
    assert values(resumed(tmp_path)) == {0: 4, 1: 4}


def test_a_spilled_state_that_was_never_committed_leaves_no_file(tmp_path):
    states, folder = PersonalStates(), state_folder(tmp_path)
    states.spill_to(folder, 0)
    commit(states, {1: 1})
    states.stage(1, state(2))
    states.stage(5, state(5))
    assert len(names(folder)) == 3
    checkpoint(states, tmp_path, 1)
    assert len(names(folder)) == 1
    assert values(states) == {1: 1}


def test_files_after_the_checkpoint_are_not_overwritten_and_go_later(tmp_path):
    """A run killed in round 2 left a spilled file; the run that goes on takes other names."""
    states, folder = PersonalStates(), state_folder(tmp_path)
    states.spill_to(folder, 0)
    commit(states, {1: 1})
    checkpoint(states, tmp_path, 1)
    commit(states, {1: 2})  # spilled, and then the process is gone
    left = names(folder)
    again = resumed(tmp_path, 0)
    assert values(again) == {1: 1}
    commit(again, {1: 3})
    assert set(left) < set(names(folder))
    checkpoint(again, tmp_path, 2)
    checkpoint(again, tmp_path, 3)
    assert len(names(folder)) == 1
    assert values(resumed(tmp_path)) == {1: 3}


def test_memory_that_is_not_the_states_own_is_copied(tmp_path):
    """Arrays that Ray maps and views of larger tensors are copied, a tensor of one's own is not."""
    mapped = np.zeros(1000, dtype=np.float32)
    large, own = torch.zeros(1000), torch.zeros(10)
    states = PersonalStates()
    states.stage(1, {"mapped": as_tensor(mapped), "view": large[:10], "own": own})
    states.commit([1])
    mapped[:], large[:] = 9, 9
    assert not states[1]["mapped"].any()
    assert not states[1]["view"].any()
    assert states[1]["own"].data_ptr() == own.data_ptr()


def test_any_tensor_comes_back_from_disk(tmp_path):
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    given = {
        "heads.a/b.weight": image,
        "scalar": torch.tensor(2**60),
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "none": torch.zeros(0, 3),
        "bool": torch.tensor([True, False]),
    }
    states = PersonalStates()
    states.spill_to(tmp_path, 0)
    for cid in (1, 11):  # "1/" is no prefix of "11/"
        states.stage(cid, given)
    states.commit([1, 11])
    for cid in (1, 11):
        assert list(states[cid]) == list(given)  # in this order: a sum over them has the same bits
        for name, tensor in given.items():
            assert states[cid][name].dtype == tensor.dtype
            assert torch.equal(states[cid][name].nan_to_num(), tensor.nan_to_num())


def test_a_file_that_is_gone_is_one_line(tmp_path):
    states = PersonalStates()
    states.spill_to(tmp_path, 0)
    commit(states, {1: 1})
    (path,) = tmp_path.iterdir()
    path.unlink()
    with pytest.raises(RunError, match="cannot be read") as caught:
        states[1]
    assert "\n" not in str(caught.value)
