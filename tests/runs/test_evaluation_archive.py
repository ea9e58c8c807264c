"""Saved evaluations: nothing lost, every number re-cut from the file, no half-written file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedlt.data.shots import shot_groups
from fedlt.errors import FedltError
from fedlt.evaluation import (
    PersonalScores,
    client_hits,
    generic_metrics,
    local_test,
    personal_metrics,
    score_generic,
)
from fedlt.runs.evaluations import Evaluation, evaluation_path, load_evaluation, save_evaluation


def first_stream(logits):
    return logits[:, 0]


def build(scheme="reference", personal=True, logits=True):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    features = torch.randn(40, 1, 4, generator=generator)
    heads = {"main": lambda x: x, "ψ'": lambda x: -x}
    generic = score_generic(
        features, labels, heads, first_stream, block_size=16, keep_logits=logits
    )
    counts = np.array([[5, 1, 0, 0], [0, 2, 2, 1], [3, 0, 0, 7]])
    view = local_test(counts, np.full(4, 10), scheme=scheme)
    rows = [
        client_hits(
            {"generic": features[:, 0]}, labels, class_counts=c, test_mask=view.test_mask(k)
        )
        for k, c in enumerate(counts)
    ]
    scores = PersonalScores.stack(range(3), [rows[0], None, rows[1]], rows)
    return Evaluation(
        round=7,
        generic=generic,
        client_counts=counts,
        test_counts=np.full(4, 10),
        participated=np.array([True, False, True]),
        local_test=scheme,
        personal=scores if personal else None,
        labels=labels.numpy() if logits else None,
    )


def same(a, b):
    if dataclasses.is_dataclass(a):
        names = [f.name for f in dataclasses.fields(a)]
        return all(same(getattr(a, n), getattr(b, n)) for n in names)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("options", [{}, {"personal": False}, {"logits": False, "scheme": "exact"}])
def test_round_trip(tmp_path, options):
    evaluation = build(**options)
    path = evaluation_path(tmp_path, 7)
    save_evaluation(path, evaluation)
    assert path.name == "round_7.npz"
    assert sorted(p.name for p in path.parent.iterdir()) == ["clients.npz", "round_7.npz"]
    loaded = load_evaluation(path)
    assert same(evaluation, loaded)


def test_every_number_is_cut_again_from_the_file(tmp_path):
    evaluation = build()
    save_evaluation(tmp_path / "round_7.npz", evaluation)
    loaded = load_evaluation(tmp_path / "round_7.npz")

    def numbers(e):
        shots = shot_groups(e.client_counts.sum(axis=0), scheme="rank")
        view = local_test(e.client_counts, e.test_counts, scheme=e.local_test)
        personal = personal_metrics(e.personal, view, shots, participated=e.participated)
        return generic_metrics(e.generic, shots) | personal

    assert numbers(loaded) == numbers(evaluation)


def test_the_file_opens_without_pickle_and_logits_score_again(tmp_path):
    save_evaluation(tmp_path / "round_7.npz", build())
    with np.load(tmp_path / "round_7.npz", allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= set("iufbU")
        assert file["generic.heads"].tolist() == ["main", "ψ'"]
        logits, labels = file["generic.logits"], file["labels"]
        confusion = file["generic.confusion"]
    assert logits.dtype == np.float16
    hits = (logits[0].argmax(axis=1) == labels).sum()
    assert hits == np.trace(confusion[0])


def test_what_all_rounds_share_is_written_once(tmp_path):
    evaluation = build()
    written = save_evaluation(tmp_path / "round_7.npz", evaluation)
    assert [*written] == ["clients.npz", "round_7.npz"]
    stamp = (tmp_path / "clients.npz").stat().st_mtime_ns
    save_evaluation(tmp_path / "round_8.npz", dataclasses.replace(evaluation, round=8), once=False)
    assert (tmp_path / "clients.npz").stat().st_mtime_ns == stamp
    with np.load(tmp_path / "round_8.npz") as file:
        assert "client_counts" not in file.files
    assert same(load_evaluation(tmp_path / "round_8.npz").client_counts, evaluation.client_counts)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "round_7.npz"
    save_evaluation(path, build())
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("fedlt.machine.durable.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_evaluation(path, build(personal=False))
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clients.npz", "round_7.npz"]


@pytest.mark.parametrize("content", [None, b"", b"not a zip"])
def test_other_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "round_1.npz"
    if content is not None:
        path.write_bytes(content)
    words = "round_1.npz is missing" if content is None else "round_1.npz: not a saved evaluation"
    with pytest.raises(FedltError, match=words) as error:
        load_evaluation(path)
    assert "pickle" not in str(error.value)  # NumPy advises to trust such a file


def test_an_archive_that_counts_other_classes_is_refused(tmp_path):
    path = tmp_path / "round_7.npz"
    save_evaluation(path, build())
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"generic.confusion": arrays["generic.confusion"][:, :1, :1]})
    with pytest.raises(FedltError, match="not a saved evaluation"):
        load_evaluation(path)


def test_a_foreign_npz_is_refused(tmp_path):
    path = tmp_path / "round_1.npz"
    for one in (path, path.with_name("clients.npz")):
        np.savez(one, other=np.zeros(1))
    with pytest.raises(FedltError, match="not a saved evaluation"):
        load_evaluation(path)
