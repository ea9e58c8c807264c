"""The run directory ``output/name/seed``: what it holds, and when it may be written.

    config.yaml        the resolved configuration      environment.json   versions and machine
    partition.json     which client has which images   evaluations/       see fedlt.evaluation
    rounds.jsonl       one line per evaluated round    checkpoints/       see fedlt.checkpoints
    result.json        written last: it makes the run finished

A directory appears whole (it is prepared under another name); JSON files are replaced atomically.
One process at a time works in it: it holds a lock on config.yaml, which ends with the process.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from fedlt.config import (
    Config,
    config_hash,
    differing_keys,
    file_digests,
    load_config,
    to_yaml,
)
from fedlt.errors import FedltError

if TYPE_CHECKING:
    from fedlt.data import Partition

__all__ = [
    "Action",
    "RunDirectory",
    "RunState",
    "environment",
    "fedlt_version",
    "plain",
    "run_directories",
    "write_json",
]

RunState = Literal["absent", "unfinished", "finished"]
Action = Literal["start", "resume", "show"]

_RESULT = ("seed", "rounds", "split", "shots", "partition_hash", "seconds", "final", "last_k")
_PACKAGES = ("torch", "torchvision", "flwr", "ray", "numpy", "safetensors")


@dataclass(frozen=True)
class RunDirectory:
    """One run's directory. It is not touched before `create`."""

    path: Path

    @classmethod
    def of(cls, config: Config) -> RunDirectory:
        """Return the directory of ``config``, whose ``seed`` is the run's."""
        return cls(Path(config.output) / config.name / str(config.seed))

    @property
    def checkpoints(self) -> Path:
        """The folder that `fedlt.checkpoints` reads and writes."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """The folder of ``round_R.npz`` files."""
        return self.path / "evaluations"

    @property
    def state(self) -> RunState:
        """Whether there is a run here, and whether it has its result."""
        if (self.path / "result.json").is_file():
            return "finished"
        return "unfinished" if self._is_occupied() else "absent"

    def _is_occupied(self) -> bool:
        return self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir()))

    def _is_run(self) -> bool:
        return (self.path / "config.yaml").is_file()

    def decide(self, config: Config, *, resume: bool = False, overwrite: bool = False) -> Action:
        """Say what running ``config`` here means. Nothing is written.

        Returns:
            ``"start"`` (nothing here yet, or ``overwrite``), ``"resume"`` (an unfinished run of the
            same configuration), or ``"show"`` (finished: its stored result answers the question).

        Raises:
            FedltError: If the directory holds an unfinished run and ``resume`` is not set, a run
                of another configuration, something that is not a run, or a run at work.
        """
        if resume and overwrite:
            raise FedltError("give --resume or --overwrite, not both")
        state = self.state
        if state == "absent":
            return "start"
        if not self._is_run():
            raise FedltError(f"{self.path} exists and is not a run directory; use name=...")
        if state == "unfinished" or overwrite:
            with self.lock():
                pass
        if overwrite:
            return "start"
        self._check_same(config, resume=resume)
        if state == "finished":
            return "show"
        if resume:
            return "resume"
        raise FedltError(
            f"{self.path} holds an unfinished run; --resume continues it, --overwrite starts again"
        )

    def _check_same(self, config: Config, *, resume: bool) -> None:
        stored, digests = self.config(), self._json("environment.json").get("files", {})
        if config_hash(stored, digests) == config_hash(config):
            return
        keys = ", ".join(
            f"{key} (its file has changed)" if key in digests else key
            for key in differing_keys(config, stored, digests)
        )
        if resume:
            raise FedltError(f"{self.path} cannot be resumed: it was run with another {keys}")
        raise FedltError(
            f"{self.path} holds a run with another {keys}; "
            "name=... keeps both, --overwrite replaces it"
        )

    def engine(self, config: Config) -> str:
        """Return the engine that a resumed run goes on with: for ``auto`` the one picked before."""
        name = config.engine.name
        return self.config().engine.name if name == "auto" else name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep the run for this process; the kernel lets go when the process ends, however.

        Raises:
            FedltError: If another process has it, or it cannot be written.
        """
        path = self.path / "config.yaml"
        try:
            file = path.open("r+b")
        except OSError as error:
            raise FedltError(f"{path} cannot be written: {error.strerror}") from error
        with file:
            _take(file, self.path)
            yield

    def create(
        self,
        config: Config,
        partition: Partition,
        *,
        overwrite: bool = False,
        engine: str | None = None,
    ) -> None:
        """Make the directory, with ``overwrite`` in place of a run that is there.

        Call it when everything is validated and `decide` says ``"start"``.

        Args:
            config: The run.
            partition: Which client has which images.
            overwrite: Whether a run may be replaced.
            engine: The engine that ``auto`` stands for.

        Raises:
            FedltError: If something is there already, or the directory cannot be written.
        """
        if engine is not None:
            picked = config.engine.model_copy(update={"name": engine})
            config = config.model_copy(update={"engine": picked})
        if self._is_occupied() and not self._is_run():
            raise FedltError(f"{self.path} exists and is not a run directory; use name=...")
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        _remove_leftovers(self.path)
        try:
            new.mkdir(parents=True)
            _fill(new, config, partition)
            if overwrite and self._is_run():
                with self.lock():
                    shutil.rmtree(self.path)
            new.rename(self.path)
        except OSError as error:
            raise FedltError(f"{self.path} cannot be made: {error.strerror or error}") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def config(self) -> Config:
        """Return the stored configuration."""
        try:
            return load_config(self.path / "config.yaml")
        except FedltError as error:
            raise FedltError(f"{error}; --overwrite starts again") from error

    def check_partition(self, partition: Partition) -> None:
        """Raise unless the stored partition is the one that a resumed run has drawn."""
        from fedlt.data import Partition

        path = self.path / "partition.json"
        if Partition.load(path).hash() != partition.hash():
            raise FedltError(f"{path} is not the partition of this run; --overwrite starts again")

    def append_round(self, row: Mapping[str, Any]) -> int:
        """Append one line to ``rounds.jsonl`` and return the file's new length in bytes."""
        line = json.dumps(plain(row), allow_nan=False) + "\n"
        with (self.path / "rounds.jsonl").open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def truncate(self, length: int) -> None:
        """Cut ``rounds.jsonl`` at the length that a checkpoint stored.

        Raises:
            FedltError: If the file is missing or shorter than that.
        """
        path = self.path / "rounds.jsonl"
        found = path.stat().st_size if path.is_file() else 0
        if found < length:
            raise FedltError(
                f"{path} has {found} bytes, the checkpoint needs {length}; --overwrite starts again"
            )
        if path.is_file():
            os.truncate(path, length)
        else:
            path.touch()

    def rounds(self) -> list[dict[str, Any]]:
        """Return the rows of ``rounds.jsonl``, without a last line that was cut off.

        Raises:
            FedltError: If the file cannot be read, or has a line that is no round.
        """
        path = self.path / "rounds.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line[-1] == "\n"]
        except (OSError, ValueError) as error:
            raise FedltError(f"{path} cannot be read; --overwrite starts again") from error
        for row in rows:
            if not isinstance(row, dict) or not isinstance(row.get("round"), int):
                raise FedltError(f"{path} is damaged; --overwrite starts again")
        return rows

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``, which makes the run finished."""
        write_json(self.path / "result.json", result)

    def result(self) -> dict[str, Any]:
        """Return the stored result of a finished run, which has what every result has."""
        found = self._json("result.json")
        if any(name not in found for name in _RESULT):
            raise FedltError(f"{self.path / 'result.json'} is damaged; --overwrite starts again")
        return found

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FedltError(f"{path} cannot be read; --overwrite starts again") from error
        if not isinstance(content, dict):
            raise FedltError(f"{path} is damaged; --overwrite starts again")
        return content


def run_directories(path: str | Path) -> list[RunDirectory]:
    """Return a run, or the runs of a folder with one per seed, by seed.

    Raises:
        FedltError: If there is none.
    """
    folder = Path(path).absolute()
    if (folder / "config.yaml").is_file():
        return [RunDirectory(folder)]
    seeds = [one for one in folder.glob("*/config.yaml") if one.parent.name.isdecimal()]
    if not seeds:
        raise FedltError(f"{path} is neither a run directory nor a folder of runs by seed")
    return [RunDirectory(one.parent) for one in sorted(seeds, key=lambda p: int(p.parent.name))]


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed have prepared for the run directory ``path``."""
    for old in path.parent.glob(f".{path.name}.*"):
        number = old.name.rpartition(".")[2]
        if number.isdecimal() and (int(number) == os.getpid() or not _is_alive(int(number))):
            shutil.rmtree(old, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    return True


def _fill(folder: Path, config: Config, partition: Partition) -> None:
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    partition.save(folder / "partition.json")
    write_json(folder / "environment.json", environment() | {"files": file_digests(config)})
    (folder / "rounds.jsonl").touch()
    (folder / "checkpoints").mkdir()
    (folder / "evaluations").mkdir()


def _take(file: BinaryIO, path: Path) -> None:
    """Lock a file of the run directory ``path`` until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise FedltError(f"{path} is in use: another process runs it") from None
        raise FedltError(f"{path} cannot be locked: {error.strerror}") from error


def plain(value: Any) -> Any:  # noqa: ANN401 (a recursion over JSON values)
    """Return ``value`` for JSON: NumPy becomes Python, a number that is not finite None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace ``path`` atomically."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(plain(content), file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def fedlt_version() -> str:
    """Return fedlt's version, or ``"unknown"`` where it is used without being installed."""
    return _version("fedlt") or "unknown"


def environment() -> dict[str, Any]:
    """Return versions and hardware, without names of hosts, users or folders."""
    return {
        "python": platform.python_version(),
        "fedlt": fedlt_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line)
    return next(models, platform.machine())
