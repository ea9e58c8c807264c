"""Make a run directory, whole or not at all: prepare under another name, then rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedlt.config import Config, to_yaml
from fedlt.errors import FedltError
from fedlt.runs.directory import RunDirectory
from fedlt.runs.environment import environment
from fedlt.runs.files import (
    CONFIG,
    ENVIRONMENT,
    FINGERPRINT,
    NAMES,
    PARTITION,
    ROUNDS,
    is_run,
    write_sealed,
)

if TYPE_CHECKING:
    from fedlt.data import Partition
    from fedlt.runs.fingerprint import Fingerprint


def create_run(
    directory: RunDirectory,
    config: Config,
    partition: Partition,
    found: Fingerprint,
    *,
    overwrite: bool = False,
    engine: str | None = None,
    client_names: Sequence[str] = (),
) -> None:
    """Make a run directory; with ``overwrite``, replace a run that lies there.

    Call it when everything is validated and `RunDirectory.decide` says ``"start"``.

    Args:
        directory: The run's directory.
        config: The run.
        partition: Which client has which images.
        found: The run's fingerprint.
        overwrite: True if an existing run may be replaced.
        engine: The engine that ``auto`` stands for.
        client_names: (K,) names of natural clients; kept only with ``report.client_names``.

    Raises:
        FedltError: If something is there already, or the directory cannot be written.
    """
    path = directory.path
    if engine is not None:
        picked = config.engine.model_copy(update={"name": engine})
        config = config.model_copy(update={"engine": picked})
    if directory.state != "absent" and not is_run(path):
        raise FedltError(f"{path} exists and is not a run directory; use name=...")
    new = path.with_name(f".{path.name}.{os.getpid()}")
    _remove_leftovers(path)
    try:
        new.mkdir(parents=True)
        _fill(new, config, partition, found)
        if config.report.client_names and client_names:
            write_sealed(new / NAMES, {"names": list(client_names)}, found.run)
        if overwrite and is_run(path):
            with directory.lock():
                shutil.rmtree(path)
        new.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            words = f"{path} is in use: another process has made it meanwhile"
            raise FedltError(words) from error
        raise FedltError(f"{path} cannot be made: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fill(folder: Path, config: Config, partition: Partition, found: Fingerprint) -> None:
    (folder / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    partition.save(folder / PARTITION)
    write_sealed(folder / ENVIRONMENT, environment(), found.run)
    write_sealed(folder / FINGERPRINT, found.to_json(), found.run)
    (folder / ROUNDS).touch()
    (folder / "checkpoints").mkdir()
    (folder / "evaluations").mkdir()


def _remove_leftovers(path: Path) -> None:
    """Remove the unfinished folders of killed processes for the run directory ``path``."""
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
        pass  # the process belongs to another user
    return True
