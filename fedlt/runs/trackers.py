"""Trackers: TensorBoard, MLflow or Weights & Biases get a run's numbers beside its own files.

``rounds.jsonl`` is always written and is the record that counts. A tracker gets the same numbers,
writes under ``<run>/trackers/<name>`` and uses no network: MLflow writes into a folder, Weights &
Biases offline, both without their default usage reports. A resumed run starts its trackers again
from ``rounds.jsonl``.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedlt.errors import FedltError, one_line

if TYPE_CHECKING:
    from fedlt.config import Config

Numbers = Mapping[str, float]


class Tracker(Protocol):
    """Tracker: receives the numbers of each round."""

    def log(self, round: int, values: Numbers) -> None:
        """Log the numbers of a round."""

    def finish(self) -> None:
        """Close the tracker; all numbers are on disk afterwards."""


class TensorBoard:
    """TensorBoard event files; ``tensorboard --logdir runs`` shows the files."""

    module = "tensorboard"

    def __init__(self, folder: Path, config: Config) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(log_dir=str(folder))
        self._writer.add_text("config", f"```\n{_yaml(config)}```")

    def log(self, round: int, values: Numbers) -> None:
        """Log the numbers of a round."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, round)

    def finish(self) -> None:
        """Close the tracker."""
        self._writer.close()


class Mlflow:
    """MLflow store of files; ``mlflow ui --backend-store-uri FOLDER`` shows the store."""

    module = "mlflow"

    def __init__(self, folder: Path, config: Config) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        client = importlib.import_module("mlflow").MlflowClient
        for name in ("mlflow", "alembic"):  # lines about tables, in the middle of the progress
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = client(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        experiment = self._client.create_experiment(config.name, folder.as_uri())
        run = self._client.create_run(experiment, run_name=f"{config.name} seed {config.seed}")
        self._run = run.info.run_id
        self._entities = importlib.import_module("mlflow.entities")
        self._client.set_tag(self._run, "config", _yaml(config))

    def log(self, round: int, values: Numbers) -> None:
        """Log the numbers of a round."""
        metric = self._entities.Metric
        metrics = [metric(name, value, 0, round) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self) -> None:
        """Close the tracker."""
        self._client.set_terminated(self._run)


class Wandb:
    """Offline run of Weights & Biases; ``wandb sync FOLDER`` uploads the run on demand."""

    module = "wandb"

    def __init__(self, folder: Path, config: Config) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = importlib.import_module("wandb")
        quiet = {"silent": True, "console": "off", "disable_git": True}
        no_machine = {"x_disable_meta": True, "x_disable_stats": True}
        self._run = wandb.init(
            mode="offline",
            dir=str(folder),
            project="fedlt",
            name=f"{config.name} seed {config.seed}",
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(**quiet, **no_machine),
        )

    def log(self, round: int, values: Numbers) -> None:
        """Log the numbers of a round."""
        self._run.log(dict(values), step=round)

    def finish(self) -> None:
        """Close the tracker."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, Config], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}


def _yaml(config: Config) -> str:
    from fedlt.config import to_yaml

    return to_yaml(config)


def check_trackers(names: Sequence[str]) -> None:
    """Raise if a tracker's package is not installed.

    Raises:
        FedltError: If a package is missing; the error says how to install the package.
    """
    for name in names:
        module: str = TRACKERS[name].module  # type: ignore[attr-defined]
        if find_spec(module) is None:
            raise FedltError(f"trackers: {name} is not installed; pip install 'fedlt[{name}]'")


class Trackers:
    """The trackers of a run, none of them by default."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._folder, self._config = folder, config
        self._open: dict[str, Tracker] = {}

    def start(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Open the trackers and log the rounds that the run has done already."""
        for name in self._config.trackers:
            folder = self._folder / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with self._let_go(name):
                self._open[name] = TRACKERS[name](folder.resolve(), self._config)
        if self._open:
            for row in rows:
                self.log(row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Log a row of ``rounds.jsonl``; missing numbers (None) are left out."""
        values = {
            name: float(value)
            for name, value in row.items()
            if name != "round" and isinstance(value, int | float)
        }
        for name, tracker in list(self._open.items()):
            with self._let_go(name):
                tracker.log(int(row["round"]), values)

    def finish(self) -> None:
        """Close the trackers; may be called twice."""
        for name, tracker in list(self._open.items()):
            with self._let_go(name):
                del self._open[name]
                tracker.finish()

    @contextmanager
    def _let_go(self, name: str) -> Iterator[None]:
        """Drop a tracker that fails inside the block, so that the run goes on."""
        try:
            yield
        except Exception as error:
            failed = self._open.pop(name, None)
            if failed is not None:
                with suppress(Exception):
                    failed.finish()
            logging.getLogger(__name__).warning("trackers: %s stops: %s", name, one_line(error))
