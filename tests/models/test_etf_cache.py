"""The disk cache saves time and never changes or hinders a result."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedlt.machine.cache import cache_directory
from fedlt.models.etf_cache import cached_tensor


class Maker:
    def __init__(self, value: float = 1.0) -> None:
        self.calls, self.value = 0, value

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.full((2, 3), self.value)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def ask(make: Maker, **inputs: float) -> torch.Tensor:
    return cached_tensor("thing", {"seed": 1, **inputs}, (2, 3), make)


def test_second_call_reads_the_file(folder: Path) -> None:
    make = Maker()
    first, second = ask(make), ask(make)
    assert make.calls == 1
    assert torch.equal(first, second)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]
    second.zero_()
    assert torch.equal(ask(make), first)


def test_every_input_counts(folder: Path) -> None:
    make = Maker()
    ask(make)
    ask(make, seed=2)
    ask(make, steps=1)
    cached_tensor("other", {"seed": 1}, (2, 3), make)
    assert make.calls == 4
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: save_file({"value": torch.zeros(9)}, path),
        lambda path: save_file({"other": torch.zeros(2, 3)}, path),
        lambda path: save_file({"value": torch.full((2, 3), torch.nan)}, path),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_spoilt_file_is_ignored(folder: Path, spoil) -> None:
    ask(Maker())
    (path,) = folder.iterdir()
    spoil(path)
    make = Maker()
    assert ask(make).eq(1).all()
    assert make.calls == 1


def test_a_spoilt_file_is_replaced(folder: Path) -> None:
    ask(Maker())
    (path,) = folder.iterdir()
    path.write_bytes(b"nonsense")
    make = Maker()
    ask(make)
    ask(make)
    assert make.calls == 1
    assert list(folder.iterdir()) == [path]


def test_an_unwritable_folder_only_costs_time(tmp_path, monkeypatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("FEDLT_CACHE", str(blocker / "cache"))
    make = Maker()
    ask(make)
    assert ask(make).eq(1).all()
    assert make.calls == 2


def test_the_folder_is_the_users(monkeypatch) -> None:
    monkeypatch.delenv("FEDLT_CACHE", raising=False)
    assert cache_directory() == Path.home() / ".cache" / "fedlt"
