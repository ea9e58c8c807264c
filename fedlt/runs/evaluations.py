"""``evaluations/round_R.npz``: counts of one evaluation, so that metrics are recomputed untrained.

Arrays that are the same in every round, such as the clients' class counts, are written once, to
``clients.npz``. Files hold plain NumPy arrays without pickle, and the hash of their run. A file is
written under another name, flushed to disk, then renamed: a file that exists is complete.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import BoolArray, IntArray
from fedlt.errors import FedltError
from fedlt.evaluation.local_test import LocalTest, local_test
from fedlt.evaluation.scores import GenericScores, PersonalScores
from fedlt.machine.durable import replace_synced
from fedlt.runs.files import HELP

_ONCE, _CONSTANT = "clients.npz", ("client_counts", "test_counts", "own_counts", "seed")
_RUN = "run"  # the array that names the run


@dataclass(frozen=True)
class Evaluation:
    """Counts of one evaluation round."""

    round: int
    generic: GenericScores  # with logits in the last round
    client_counts: IntArray  # (K, C) training images n_kc
    test_counts: IntArray  # (C,) images per class in the test set
    participated: BoolArray  # (K,) clients sampled at least once
    local_test: str = "exact"  # the view the hits were counted for
    personal: PersonalScores | None = None  # None in rounds of the generic view only
    labels: IntArray | None = None  # (B,) of the test set, beside the logits
    seed: int = 0  # of the run: keys the draws of ``sampled``
    own_counts: IntArray | None = None  # (K, C) test images of each client, for the view ``own``

    def view(self, scheme: str | None = None) -> LocalTest:
        """Return the local test view ``scheme``; None: the view that hits were counted for."""
        return local_test(
            self.client_counts,
            self.test_counts,
            scheme=scheme or self.local_test,
            seed=self.seed,
            own_counts=self.own_counts,
        )


def evaluation_path(run: str | Path, number: int) -> Path:
    """Return the path of the file of round ``number`` in the run directory ``run``."""
    return Path(run) / "evaluations" / f"round_{number}.npz"


def _arrays(prefix: str, value: Any) -> dict[str, npt.NDArray[Any]]:  # noqa: ANN401
    """Flatten a dataclass of arrays to ``prefix.field`` entries; None is left out."""
    pairs = {one.name: getattr(value, one.name) for one in fields(value)}
    return {f"{prefix}.{k}": np.asarray(v) for k, v in pairs.items() if v is not None}


def _fields(prefix: str, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    start = f"{prefix}."
    found: dict[str, Any] = {
        name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)
    }
    for names in {"heads", "streams"} & set(found):
        found[names] = tuple(map(str, found[names].tolist()))
    return found


def save_evaluation(
    path: str | Path, evaluation: Evaluation, *, run: str = "", once: bool = True
) -> dict[str, str]:
    """Write an evaluation atomically, compressed; parent folders are made.

    Args:
        path: Ends in ``.npz``. A folder holds evaluations of one run only.
        evaluation: The counts to write.
        run: The short hash of the run's fingerprint.
        once: True to write also the arrays that are the same in every round.

    Returns:
        The SHA-256 (hex) of every file that was written, by its name.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = _arrays("generic", evaluation.generic)
    if evaluation.personal is not None:
        arrays |= _arrays("personal", evaluation.personal)
    for one in fields(evaluation):
        value = getattr(evaluation, one.name)
        if one.name not in ("generic", "personal", *_CONSTANT) and value is not None:
            arrays[one.name] = np.asarray(value)
    parts = {target.name: arrays}
    if once:
        values = {name: getattr(evaluation, name) for name in _CONSTANT}
        constant: dict[str, Any] = {name: v for name, v in values.items() if v is not None}
        parts = {_ONCE: constant | {"seed": str(evaluation.seed)}, **parts}  # of any size
    return {
        name: _write(target.with_name(name), {**part, _RUN: np.asarray(run)})
        for name, part in parts.items()
    }


def _write(target: Path, arrays: dict[str, Any]) -> str:
    """Write arrays and return the SHA-256 of the file."""
    memory = io.BytesIO()
    np.savez_compressed(memory, **arrays)
    data = memory.getvalue()
    replace_synced(target, data)
    return hashlib.sha256(data).hexdigest()


def _read(
    path: Path, run: str | None, digests: Mapping[str, str] | None
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file, after its digest and its run are checked.

    Raises:
        FedltError: If the file is missing, unreadable, changed, or belongs to another run.
    """
    try:
        data = path.read_bytes()
        if digests is not None and hashlib.sha256(data).hexdigest() != digests.get(path.name):
            raise FedltError(f"{path} does not match its checksum; {HELP}")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FedltError:  # a ValueError, too
        raise
    except FileNotFoundError as error:
        raise FedltError(f"{path} is missing: the run has lost it; {HELP}") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FedltError(f"{path}: not a saved evaluation, or a damaged one; {HELP}") from error
    if run is not None and str(arrays.get(_RUN)) != run:
        raise FedltError(f"{path} is of another run; {HELP}")
    return arrays


def _check_classes(arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Raise unless all arrays count the same number of classes."""
    classes = len(arrays["test_counts"])
    shapes = (arrays["generic.confusion"].shape[1:], arrays["client_counts"].shape[1:])
    streams = (len(arrays["generic.streams"]), classes, classes)
    if shapes != ((classes, classes), (classes,)):
        raise ValueError("other classes")
    if arrays["generic.stream_confusion"].shape != streams:
        raise ValueError("other streams")
    if "own_counts" in arrays and arrays["own_counts"].shape != arrays["client_counts"].shape:
        raise ValueError("other clients")


def load_evaluation(
    path: str | Path, *, run: str | None = None, digests: Mapping[str, str] | None = None
) -> Evaluation:
    """Return an evaluation written by :func:`save_evaluation`.

    Args:
        path: The file of a round.
        run: The short hash of the run that the file must belong to; None: any run.
        digests: The digests that the files must have, by file name; None: no check.

    Raises:
        FedltError: If the file is missing, was changed, is of another run or is not an evaluation.
    """
    once = Path(path).with_name(_ONCE)
    try:
        arrays = _read(Path(path), run, digests) | _read(once, run, digests)
        personal = _fields("personal", arrays)
        if personal:
            personal |= {key: bool(personal.get(key, False)) for key in ("sampled", "own")}
        _check_classes(arrays)
        return Evaluation(
            round=int(arrays["round"]),
            generic=GenericScores(**_fields("generic", arrays)),
            client_counts=arrays["client_counts"],
            test_counts=arrays["test_counts"],
            participated=arrays["participated"],
            local_test=str(arrays["local_test"]),
            personal=PersonalScores(**personal) if personal else None,
            labels=arrays.get("labels"),
            seed=int(str(arrays["seed"])),
            own_counts=arrays.get("own_counts"),
        )
    except FedltError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FedltError(f"{path}: not a saved evaluation, or a damaged one; {HELP}") from error
