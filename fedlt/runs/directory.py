"""The run directory ``output/name/seed``: its files, and when a command may write there.

    config.yaml        the resolved configuration      environment.json   versions and machine
    partition.json     which client has which images   fingerprint.json   all the result depends on
    rounds.jsonl       one line per evaluated round    evaluations/       see fedlt.evaluation
    result.json        written last: the run is done   checkpoints/       see fedlt.runs.checkpoints

A directory appears whole (fedlt.runs.creation); JSON files are replaced atomically.
Every file names its run by the short hash of the fingerprint, which covers the partition's hash.
A file that belongs to another run, was changed or is missing is named in an error. One process at a
time works in a directory: the process holds a lock on config.yaml, which ends with the process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedlt.config import Config, load_config, settings_of
from fedlt.errors import FedltError, writing
from fedlt.runs.files import (
    CONFIG,
    ENVIRONMENT,
    FINGERPRINT,
    HELP,
    NAMES,
    PARTITION,
    RESULT,
    ROUNDS,
    is_run,
    missing,
    read_sealed,
    take_lock,
    write_sealed,
)
from fedlt.runs.fingerprint import RESULTS_VERSION, Fingerprint, declared
from fedlt.runs.kept import is_kept
from fedlt.runs.recorded import append_row, check_rounds, make_record, read_rows

if TYPE_CHECKING:
    from fedlt.data import Partition
    from fedlt.runs.evaluations import Evaluation

RunState = Literal["absent", "unfinished", "finished"]
Action = Literal["start", "resume", "show"]

_KEEP_OR_REPLACE = "name=... keeps both, overwrite replaces it"
_IN_RESULT = ("seed", "rounds", "split", "shots", "partition_hash", "seconds", "final", "last_k")


class OutdatedError(FedltError):
    """Error: another results version of fedlt made a run directory."""


@dataclass(frozen=True)
class RunDirectory:
    """Directory of one run; `fedlt.runs.creation` makes the directory."""

    path: Path

    @classmethod
    def of(cls, config: Config) -> RunDirectory:
        """Return the directory of ``config``, whose ``seed`` is the run's."""
        return cls(Path(config.output) / config.name / str(config.seed))

    @property
    def checkpoints(self) -> Path:
        """The folder that `fedlt.runs.checkpoints` reads and writes."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """The folder of ``round_R.npz`` files."""
        return self.path / "evaluations"

    @property
    def state(self) -> RunState:
        """State of the run here: absent, unfinished, or finished with a result."""
        if (self.path / RESULT).is_file():
            return "finished"
        occupied = self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir()))
        return "unfinished" if occupied else "absent"

    def decide(self, config: Config, *, resume: bool = False, overwrite: bool = False) -> Action:
        """Return the action that ``config`` asks for here, before data are loaded; write nothing.

        Returns:
            ``"start"`` (nothing here yet, or ``overwrite``), ``"resume"`` (an unfinished run of the
            same configuration), or ``"show"`` (finished: its stored result answers the question,
            if `check` agrees).

        Raises:
            FedltError: If the directory holds an unfinished run and ``resume`` is not set, a run
                of another configuration, an incomplete run, files of no run, or a run at work.
        """
        if resume and overwrite:
            raise FedltError("give resume or overwrite, not both")
        state = self.state
        if state == "absent":
            return "start"
        if not is_run(self.path):
            raise FedltError(f"{self.path} exists and is not a run directory; use name=...")
        recorded = None if overwrite else self.recorded()
        if state == "unfinished" or overwrite:
            with self.lock():
                pass
        if recorded is None:
            return "start"
        known = declared(config)
        fresh = replace(recorded, settings=known.settings, files=known.files, weights=known.weights)
        self.check(fresh, purpose="resumed" if resume else "shown")
        if state == "finished":
            self.result()
            return "show"
        if resume:
            return "resume"
        raise FedltError(
            f"{self.path} holds an unfinished run; resume continues it, overwrite starts again"
        )

    def check(self, found: Fingerprint, *, purpose: str = "shown") -> None:
        """Raise unless the stored run has the fingerprint ``found``, computed anew.

        Args:
            found: The fingerprint of the configuration, the data and the code as they are now.
            purpose: Use of the run, for the error: to be shown, resumed or realigned.

        Raises:
            FedltError: If the fingerprints differ; the error names every difference.
        """
        words = "; ".join(found.differences(self.recorded()))
        if words and purpose == "shown":
            raise FedltError(f"{self.path} holds another run: {words}; {_KEEP_OR_REPLACE}")
        if words:
            raise FedltError(f"{self.path} cannot be {purpose}: {words}")

    def recorded(self) -> Fingerprint:
        """Return the fingerprint that is stored here.

        Raises:
            FedltError: If the directory is not a whole run, the run was made by another results
                version, or the configuration does not match the fingerprint.
        """
        if is_kept(self.path):
            raise FedltError(
                f"{self.path} has a run's result and rounds only, which fedlt leaderboard shows; "
                "everything else needs the whole run, with its configuration and evaluations"
            )
        lacking = missing(self.path)
        if lacking == [FINGERPRINT] and self._is_older():
            self._refuse_version(1)
        if lacking:
            names = " and ".join(str(self.path / name) for name in lacking)
            verb = "are" if len(lacking) > 1 else "is"
            raise FedltError(f"{names} {verb} missing: the run is not whole; {HELP}")
        found = self._fingerprint()
        if found.results_version != RESULTS_VERSION:
            self._refuse_version(found.results_version)
        mine = settings_of(self.config())
        keys = [key for key, value in sorted(found.settings.items()) if mine.get(key) != value]
        if keys:
            pair = f"{self.path / CONFIG} and {FINGERPRINT} are not of the same run"
            raise FedltError(f"{pair}: they differ in {', '.join(keys)}; {HELP}")
        return found

    def _fingerprint(self) -> Fingerprint:
        path = self.path / FINGERPRINT
        content = read_sealed(path)
        try:
            found = Fingerprint.from_json(content)
        except TypeError as error:
            raise FedltError(f"{path} is damaged: {error}; {HELP}") from error
        read_sealed(path, found.run)
        return found

    def _is_older(self) -> bool:
        """Return True if a version of fedlt without fingerprints made this directory."""
        try:
            content = json.loads((self.path / ENVIRONMENT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and "run" not in content

    def _refuse_version(self, number: int) -> None:
        raise OutdatedError(
            f"{self.path} was made by results version {number} of fedlt, this is "
            f"{RESULTS_VERSION}: numbers have changed since; use name=... for a new run"
        )

    @property
    def run(self) -> str:
        """The short hash of the fingerprint, by which all files here name their run."""
        return self._fingerprint().run

    def engine(self, config: Config) -> str:
        """Return the engine of a resumed run: for ``auto``, the engine picked at the start."""
        name = config.engine.name
        return self.config().engine.name if name == "auto" else name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for this process. The lock ends with the process, also after a crash.

        Raises:
            FedltError: If another process holds the lock, or the lock cannot be taken.
        """
        path = self.path / CONFIG
        with writing(path):
            file = path.open("r+b")
        with file:
            take_lock(file, self.path)
            yield

    def config(self) -> Config:
        """Return the stored configuration."""
        try:
            return load_config(self.path / CONFIG)
        except FedltError as error:
            raise FedltError(f"{error}; {HELP}") from error

    def environment(self) -> dict[str, Any]:
        """Return the stored versions and hardware."""
        return read_sealed(self.path / ENVIRONMENT, self.run)

    def client_names(self) -> tuple[str, ...]:
        """Return the names of natural clients (K,); () unless the run's report may show them."""
        path = self.path / NAMES
        if not self.config().report.client_names or not path.exists():
            return ()
        return tuple(map(str, read_sealed(path, self.run)["names"]))

    def lacks_names(self, config: Config) -> bool:
        """Return True if ``config`` shows names of natural clients, which this run does not keep.

        Names change no result, so that a finished run without them is read, not repeated.
        """
        wanted = config.report.client_names and config.partition.scheme == "natural"
        return wanted and not self.config().report.client_names

    def check_partition(self, partition: Partition) -> None:
        """Raise unless the stored partition equals ``partition``, which a resumed run has drawn."""
        from fedlt.data import Partition

        path = self.path / PARTITION
        try:
            stored = Partition.load(path)
        except FedltError as error:
            raise FedltError(f"{path} is damaged ({error}); {HELP}") from error
        if not stored.hash() == partition.hash() == self._fingerprint().partition:
            raise FedltError(f"{path} is of another run; {HELP}")

    def append_round(self, row: Mapping[str, Any]) -> int:
        """Append one line to ``rounds.jsonl`` and return the file's new length in bytes."""
        return append_row(self.path / ROUNDS, row, self.run)

    def rounds(self) -> list[dict[str, Any]]:
        """Return the rows of ``rounds.jsonl``, without a last line that was cut off.

        Raises:
            FedltError: If the file cannot be read, was changed since the run has finished, or has
                a line that is no round of this run.
        """
        rows = read_rows(self.path / ROUNDS, self.run)
        if self.state == "finished":
            wrong = check_rounds(self.path, self._record(), whole=True)
            if wrong:
                raise FedltError(f"{wrong}; {HELP}")
        return rows

    def write_evaluation(self, evaluation: Evaluation, *, once: bool) -> dict[str, str]:
        """Write the counts of an evaluation and return the digests of the files written.

        Args:
            evaluation: The counts.
            once: True to write also the arrays that are the same in every round.
        """
        from fedlt.runs.evaluations import evaluation_path, save_evaluation

        path = evaluation_path(self.path, evaluation.round)
        return save_evaluation(path, evaluation, run=self.run, once=once)

    def evaluation(self, number: int) -> Evaluation:
        """Return the evaluation after round ``number``.

        Raises:
            FedltError: If the file is missing, was changed, or belongs to another run.
        """
        from fedlt.runs.evaluations import evaluation_path, load_evaluation

        digests = self._record()["evaluations"] if self.state == "finished" else None
        path = evaluation_path(self.path, number)
        return load_evaluation(path, run=self.run, digests=digests)

    def write_result(self, result: Mapping[str, Any], evaluations: Mapping[str, str]) -> None:
        """Write ``result.json``, which makes the run finished.

        Args:
            result: Its content.
            evaluations: The digests of the run's evaluations, by file.
        """
        record = make_record(self.path, evaluations)
        write_sealed(self.path / RESULT, {**result, "record": record}, self.run)

    def result(self) -> dict[str, Any]:
        """Return the stored result of a finished run.

        Raises:
            FedltError: If the directory is not a whole run, or the result was changed or is of
                another run.
        """
        found = self._result(self.recorded())
        del found["record"]
        return found

    def _result(self, recorded: Fingerprint) -> dict[str, Any]:
        path = self.path / RESULT
        found = read_sealed(path, recorded.run)
        if any(name not in found for name in (*_IN_RESULT, "record")):
            raise FedltError(f"{path} is damaged: it is not a result; {HELP}")
        return found

    def _record(self) -> Mapping[str, Any]:
        record: Mapping[str, Any] = self._result(self._fingerprint())["record"]
        return record


def run_directories(path: str | Path) -> list[RunDirectory]:
    """Return the run at ``path``, or the runs of a folder with one run per seed, sorted by seed.

    Raises:
        FedltError: If there is no run, or a run is incomplete.
    """
    folder = Path(path).absolute()
    if is_run(folder):
        found = [RunDirectory(folder)]
    else:
        seeds = [one for one in folder.glob("*") if one.name.isdecimal() and is_run(one)]
        found = [RunDirectory(one) for one in sorted(seeds, key=lambda seed: int(seed.name))]
    if not found:
        below = [one.name for one in sorted(folder.glob("*")) if [*one.glob("*/config.yaml")]]
        hint = f"; it holds comparisons' rows: {', '.join(below[:5])}" if below else ""
        raise FedltError(f"{path} is neither a run directory nor a folder of runs by seed{hint}")
    for directory in found:
        directory.recorded()
    return found
