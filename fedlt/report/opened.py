"""A finished run as a Python object: its result, frames, models and partition."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlt.comparing.sheet import to_html
from fedlt.comparing.terminal import method_words, result_sheets
from fedlt.errors import FedltError, nearest
from fedlt.evaluation.headline import scored_set
from fedlt.report.build import write_report
from fedlt.report.finished import RunRecord, read_record
from fedlt.report.frames import classes_frame, clients_frame, rounds_frame
from fedlt.runs.directory import RunDirectory, run_directories
from fedlt.runs.files import HELP, PARTITION

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from fedlt.config import Config


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run. Everything is read from its folder; nothing is trained."""

    path: Path  # the run directory, output/name/seed

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of ``result.json``: both views at four moments, costs, class groups."""
        return RunDirectory(self.path).result()

    @cached_property
    def config(self) -> Config:
        """The configuration, with every default filled in: ``run.config.local.lr``."""
        return RunDirectory(self.path).config()

    @cached_property
    def partition(self) -> Mapping[int, NDArray[np.int64]]:
        """Client -> ascending positions of the client's images in the run's training images."""
        from fedlt.data.partition import Partition

        directory, file = RunDirectory(self.path), self.path / PARTITION
        found = Partition.load(file)
        if found.hash() != directory.recorded().partition:
            raise FedltError(f"{file} is of another run; {HELP}")
        return dict(enumerate(found.clients))

    @cached_property
    def _record(self) -> RunRecord:
        return read_record(RunDirectory(self.path))

    def rounds(self) -> pd.DataFrame:
        """Return a frame with one row per scored round: metrics by name, and seconds.

        Raises:
            FedltError: If pandas is not installed, or the run's record was changed.
        """
        return rounds_frame(self._record.rounds)

    def classes(self) -> pd.DataFrame:
        """Return a frame with one row per class, after the last round.

        Columns: ``class``, ``name``, ``images``, ``test_images``, ``group``, ``generic/recall``,
        ``generic/<head>/recall`` of every further generic head and stream, ``personal/recall``.

        Raises:
            FedltError: If pandas is not installed, or the last evaluation is missing or changed.
        """
        return classes_frame(self._record)

    def clients(self) -> pd.DataFrame:
        """Return a frame with one row per client, after the last round.

        Columns: ``client``, ``images``, ``classes``, ``accuracy``, ``generic``, ``gain``,
        ``majority_guess``, ``owns_few``, ``participated``.

        Raises:
            FedltError: If pandas is not installed, or the last evaluation is missing or changed.
        """
        return clients_frame(self._record)

    def model(self, *, client: int | None = None, head: str | None = None) -> nn.Module:
        """Return the scored model: images (B, Ch, H, W) as the data set has them -> logits (B, C).

        Args:
            client: A client, for the client's personal model; None: the generic model.
            head: A head by name; None: the primary head.

        Raises:
            FedltError: If there is no such client, head or model.
        """
        from fedlt.export import scored_model

        if client is not None:
            clients = len(self.partition)
            if isinstance(client, bool) or not isinstance(client, (int, np.integer)):
                raise FedltError(f"client: {client!r} is not the number of a client")
            if not 0 <= client < clients:
                words = f"expected 0 to {clients - 1}"
                raise FedltError(f"client: {self.path} has no client {client}; {words}")
            client = int(client)
        return scored_model(self.path, client=client, head=head)

    def report(self, path: str | Path) -> Path:
        """Write the report of this run, one HTML page, and return its path.

        Raises:
            FedltError: If the run cannot be read, or the page cannot be written.
        """
        return write_report([self.path], Path(path).absolute())[0]

    def __repr__(self) -> str:
        result = self.result
        known = scored_set(result).told(result["final"])
        words = [
            method_words(result), f"seed {result['seed']}", f"{result['rounds']} rounds", *known
        ]  # fmt: skip
        return f"<Run {self.config.name}: {', '.join(words)}; {self.path}>"

    def _repr_html_(self) -> str:
        """Return both views as tables, for a notebook."""
        title, views, notes = result_sheets(self.result)
        tables = "".join(to_html(sheet) for sheet in views)
        lines = "".join(f"<p>{escape(line)}</p>" for line in [*notes, str(self.path)])
        return f"<p><b>{escape(self.config.name)}</b>: {escape(title)}, in %</p>{tables}{lines}"


def load(path: str | os.PathLike[str], /) -> Run:
    """Return the finished run in a run directory, such as ``runs/quickstart/1``.

    Args:
        path: The run directory, or a folder that holds a single run by its seed.

    Raises:
        FedltError: If there is no run, more than one, or one that is not finished or not whole.
    """
    folder = Path(path).expanduser().absolute()
    if not folder.exists():
        beside = [str(Path(path).parent / one.name) for one in _folders(folder.parent)]
        near = nearest(str(path), beside) if beside else ""
        raise FedltError(f"{path}: there is no such folder{near}")
    found = run_directories(folder)
    if len(found) > 1:
        names = ", ".join(one.path.name for one in found)
        raise FedltError(f"{path} holds the runs {names}; name one, such as {found[0].path}")
    if found[0].state != "finished":
        words = "fedlt run FILE --resume, or fedlt.run(..., resume=True), finishes it"
        raise FedltError(f"{found[0].path} holds an unfinished run; {words}")
    found[0].result()
    return Run(found[0].path)


def _folders(folder: Path) -> list[Path]:
    return [one for one in folder.glob("*") if one.is_dir()] if folder.is_dir() else []
