"""``FinishedRun``: what a run directory says of a finished run, and the run's method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.errors import FedltError
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory, run_directories
from fedlt.runs.fingerprint import declared, fingerprint

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.federation import Parties
    from fedlt.runs.checkpoints import Checkpoint
    from fedlt.runs.evaluations import Evaluation
    from fedlt.strategy import Strategy

_ARRAYS = ("data.", "partition.")  # keys of files that count only where the data are loaded


@dataclass(frozen=True)
class FinishedRun:
    """Finished run, as its directory has it, and its method."""

    directory: RunDirectory
    config: Config
    result: dict[str, Any]
    evaluation: Evaluation  # of the last round
    strategy: Strategy
    plugin: ClientPlugin

    @classmethod
    def at(cls, path: str | Path) -> FinishedRun:
        """Return the run of a directory, or of a folder that holds one seed.

        Raises:
            FedltError: If there is no finished run, or there are several.
        """
        found = run_directories(path)
        directory = found[0]
        if len(found) > 1:
            names = ", ".join(one.path.name for one in found)
            raise FedltError(f"{path} holds runs of seeds {names}; give one, as {directory.path}")
        if directory.state != "finished":
            raise FedltError(f"{path} is not finished; resume it first")
        config, result = directory.config(), directory.result()
        return cls(
            directory,
            config,
            result,
            directory.evaluation(result["rounds"]),
            resolve_strategy(config),
            resolve_client(config),
        )

    @property
    def tunes(self) -> bool:
        """True if personal models are trained just before scoring."""
        return self.strategy.adapt_epochs > 0 or self.config.personal.refresh.epochs > 0

    @property
    def has_generic(self) -> bool:
        """True if the method has a generic model."""
        return bool(self.result["generic_model"] != "none")

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the last round.

        Raises:
            FedltError: If it is missing, damaged, or of another run.
        """
        last, folder = self.result["rounds"], self.directory.checkpoints

        def check(one: Checkpoint) -> str:
            return "" if one.round == last else f"the scored model is that of round {last}"

        found = load_checkpoint(folder, run=self.directory.run, check=check)
        if found is None:
            raise FedltError(f"{self.directory.path} has no checkpoint to export")
        return found

    def check(self, parties: Parties | None) -> None:
        """Raise unless the code, and the data where they are loaded, are those of the run."""
        recorded = self.directory.recorded()
        if parties is not None:
            data = parties.observer.data
            self.directory.check(fingerprint(self.config, data), purpose="exported")
            self.directory.check_partition(data.partition)
            return
        known = declared(self.config)
        code = {k: v for k, v in known.files.items() if not k.startswith(_ARRAYS)}
        arrays = {k: v for k, v in recorded.files.items() if k.startswith(_ARRAYS)}
        fresh = replace(recorded, settings=known.settings, files={**code, **arrays})
        self.directory.check(fresh, purpose="exported")
