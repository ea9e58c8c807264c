"""Checkpoints come back exactly, or not at all: truncation, bit flips, fallback."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from fedlt.errors import FedltError
from fedlt.runs import checkpoints
from fedlt.runs.checkpoints import load_checkpoint, save_checkpoint


def groups() -> dict[str, dict[str, torch.Tensor]]:
    shared = torch.arange(12.0)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    return {
        "broadcast": {"z": shared, "a": shared[3:6], "view": shared.view(3, 4).T},
        "private": {},
        "fixed": {
            "int": torch.tensor(2**60),
            "bool": torch.tensor([True, False]),
            "half": torch.tensor([1.5], dtype=torch.bfloat16),
            "none": torch.zeros(0, 3),
            "image": image,
            "nan": torch.tensor([float("nan"), -0.0]),
        },
        "personal/11": {"head.weight": torch.ones(2, 2)},
        "personal/2": {"head.weight": torch.ones(2, 2, requires_grad=True)},
    }


def save(folder, number, value=1.0):
    tensors = {"broadcast": {"w": torch.full((3,), value)}}
    return save_checkpoint(folder, round=number, tensors=tensors, meta={"length": number * 10})


def test_everything_comes_back_in_order(tmp_path):
    saved = groups()
    meta = {"rounds_length": 12, "best": {"b": 0.1, "a": None}, "text": "ü"}
    path = save_checkpoint(tmp_path, round=10, tensors=saved, meta=meta)
    assert path.name == "round_000010"
    loaded = load_checkpoint(tmp_path)
    assert loaded.round == 10
    assert loaded.meta == meta
    assert list(loaded.meta["best"]) == ["b", "a"]
    assert list(loaded.tensors) == list(saved)
    for group, named in saved.items():
        assert list(loaded.tensors[group]) == list(named)
        for name, tensor in named.items():
            found = loaded.tensors[group][name]
            assert found.dtype == tensor.dtype
            assert found.shape == tensor.shape
            assert torch.equal(found.nan_to_num(9.0), tensor.nan_to_num(9.0))
    assert torch.signbit(loaded.tensors["fixed"]["nan"][1])


def test_loaded_tensors_are_writable_and_apart(tmp_path):
    save_checkpoint(tmp_path, round=1, tensors=groups(), meta={})
    loaded = load_checkpoint(tmp_path).tensors["broadcast"]
    loaded["z"].add_(100)
    assert loaded["a"].tolist() == [3.0, 4.0, 5.0]


def test_saving_leaves_the_tensors_alone(tmp_path):
    saved = groups()
    save_checkpoint(tmp_path, round=1, tensors=saved, meta={})
    saved["broadcast"]["z"][3] = -1
    assert saved["broadcast"]["a"][0] == -1


def test_names_that_look_like_groups_do_not_collide(tmp_path):
    tensors = {"a": {"b/c": torch.tensor(1)}, "a/b": {"c": torch.tensor(2)}}
    save_checkpoint(tmp_path, round=1, tensors=tensors, meta={})
    assert load_checkpoint(tmp_path).tensors == tensors


def test_none_saved(tmp_path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None


def test_last_two_are_kept_and_temporary_folders_removed(tmp_path):
    (tmp_path / ".round_000004.123").mkdir()
    for number in (5, 10, 15):
        save(tmp_path, number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_000010", "round_000015"]


def test_later_rounds_that_a_resumed_run_left_behind_are_removed(tmp_path):
    for number in (10, 20):
        save(tmp_path, number)
    save(tmp_path, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_000010", "round_000015"]


def test_the_same_round_again_replaces(tmp_path):
    save(tmp_path, 5, 1.0)
    save(tmp_path, 5, 2.0)
    assert load_checkpoint(tmp_path).tensors["broadcast"]["w"].tolist() == [2.0] * 3


def test_more_than_six_digits_sort_by_number(tmp_path):
    for number in (999_999, 1_000_000):
        save(tmp_path, number)
    assert load_checkpoint(tmp_path).round == 1_000_000


def test_sums_are_those_of_sha256sum(tmp_path):
    path = save(tmp_path, 1)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=path, check=True)
    assert json.loads((path / "checkpoint.json").read_text())["meta"] == {"length": 10}


FILES = ["tensors.safetensors", "checkpoint.json", "SHA256SUMS"]


@pytest.mark.parametrize("name", FILES)
def test_truncation_at_any_byte_falls_back(tmp_path, name, caplog):
    save(tmp_path, 10)
    path = save(tmp_path, 20) / name
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert load_checkpoint(tmp_path).round == 10, length
    assert "round_000020 cannot be used" in caplog.text
    path.write_bytes(whole)
    assert load_checkpoint(tmp_path).round == 20


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_falls_back(tmp_path, name):
    save(tmp_path, 10)
    path = save(tmp_path, 20) / name
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(damaged))
        assert load_checkpoint(tmp_path).round == 10, position


@pytest.mark.parametrize("name", FILES)
def test_missing_file_falls_back(tmp_path, name):
    save(tmp_path, 10)
    (save(tmp_path, 20) / name).unlink()
    assert load_checkpoint(tmp_path).round == 10


def test_none_readable_is_one_line_that_names_the_file(tmp_path):
    for number in (10, 20):
        (save(tmp_path, number) / "checkpoint.json").write_text("{}")
    with pytest.raises(FedltError) as caught:
        load_checkpoint(tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert "checkpoint.json does not match its checksum" in line
    assert "round_000010" in line


def test_another_versions_checkpoint_is_refused_in_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(checkpoints, "FORMAT", checkpoints.FORMAT - 1)
        save(tmp_path, 1)
    with pytest.raises(FedltError, match="written by another version of fedlt") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
