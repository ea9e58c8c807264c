"""fedlt in Python: what the commands do, as functions. ``fedlt.run`` is :func:`run` here.

    run = fedlt.run("quickstart", "rounds=5")      # trains, or opens the finished run
    run = fedlt.load("runs/quickstart/1")          # opens a finished run
    table = fedlt.compare("quickstart", strategies=["fedavg", "fedrod"], seeds=[1, 2, 3, 4, 5])
    model = fedlt.load_model("model.safetensors")  # an exported model

Mistakes raise :class:`~fedlt.errors.FedltError` with one line. docs/python.md is the reference.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fedlt.comparing.comparison import Comparison, read_comparison
from fedlt.comparing.display import RunsProgress, make_runs_progress
from fedlt.comparing.exports import conclusions, write_tables
from fedlt.comparing.grid import Setting
from fedlt.comparing.grid_runs import planned_runs, raise_failed, run_grid
from fedlt.comparing.tuning import write_rates
from fedlt.comparing.verdicts import pick_reference
from fedlt.config import Config
from fedlt.config.experiments import find_experiment
from fedlt.config.load import load_content, parse_options
from fedlt.config.loading import add_import_paths
from fedlt.config.paths import output_folder, with_paths
from fedlt.config.yaml12 import read_mapping
from fedlt.errors import FedltError, StoppedError
from fedlt.machine.borrowed import borrowed_process
from fedlt.machine.stopping import stopped_by_terminate
from fedlt.methods.objects import PlainTree
from fedlt.progress import Progress, in_notebook, make_progress
from fedlt.report.compared import ComparisonTable
from fedlt.report.finished import MOMENT
from fedlt.report.opened import Run, load
from fedlt.runs.directory import RunDirectory
from fedlt.runs.endings import first_unfinished
from fedlt.simulate import check_runs
from fedlt.simulate import run as run_one

if TYPE_CHECKING:
    from torch import nn

__all__ = ["compare", "load", "load_model", "run"]

Source = str | os.PathLike[str] | Mapping[str, Any] | Config  # an experiment
Method = str | object  # a name, or a strategy or client plugin as an object

_HERE = Path("the configuration")  # stands for a file in errors about a dictionary
_CODE = "code"  # folder of session code, in the folder of all runs


def run(
    experiment: Source,
    /,
    *overrides: str,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run | Any:  # noqa: ANN401 (Any stands for a list of runs: a single run needs no check)
    """Train an experiment and return its run; a finished run is opened, not repeated.

    Args:
        experiment: The name of an experiment, the path of a file, a dictionary with the same keys,
            or a configuration such as ``run.config``. In a dictionary, a strategy, client plugin
            or function may be an object: ``{"strategy": FedProx(mu=0.1), ...}``.
        overrides: ``key.sub=value`` strings, as on the command line.
        resume: Go on from the newest checkpoint of an unfinished run.
        overwrite: Start again where a run exists.
        quiet: True for no progress bar.

    Returns:
        The run; a list of runs, one per seed, if the experiment has ``seeds``.

    Raises:
        FedltError: If the experiment is not valid, or its folder holds another run.
        RunError: If the run cannot go on; its last checkpoint is intact.
        KeyboardInterrupt: After an interrupt; the message says how to go on.
    """
    config: Config | None = None
    with _session(), _content(experiment, overrides) as (tree, path):
        try:
            with stopped_by_terminate():
                config = load_content(tree, path, overrides)
                check_runs(config, resume=resume, overwrite=overwrite)
                for one in config.runs():
                    _carry_out(one, resume=resume, overwrite=overwrite, quiet=quiet)
        except KeyboardInterrupt:
            words = f"{first_unfinished(config)}: fedlt.run(..., resume=True)"
            raise KeyboardInterrupt(f"interrupted; {words}") from None
        except StoppedError as error:
            words = f"{first_unfinished(config)}: fedlt.run(..., resume=True)"
            raise StoppedError(f"{error}; {words}") from error
    runs = [Run(RunDirectory.of(one).path) for one in config.runs()]
    return runs[0] if config.seeds is None else runs


def _carry_out(config: Config, *, resume: bool, overwrite: bool, quiet: bool) -> None:
    label = f"{config.name} seed {config.seed}"
    progress = Progress() if quiet else make_progress(Console(stderr=True), label)
    try:
        run_one(config, resume=resume, overwrite=overwrite, progress=progress, estimate=not quiet)
    finally:
        progress.stop()


def load_model(path: str | os.PathLike[str], /) -> nn.Module:
    """Return a model that ``fedlt export`` has written: images (B, Ch, H, W) -> logits (B, C).

    Raises:
        FedltError: If the file is no exported model.
    """
    from fedlt.export import load_model as load_exported

    return load_exported(Path(path))


def compare(
    experiment: Source,
    /,
    *overrides: str,
    strategies: Sequence[Method] = (),
    clients: Sequence[Method] = (),
    seeds: Sequence[int] = (),
    rows: Sequence[str] = (),
    against: str = "",
    jobs: int | None = None,
    quiet: bool = False,
) -> ComparisonTable:
    """Run every row of a comparison with every seed, and return the table of the finished runs.

    Finished runs are read, unfinished runs are resumed. The tables are written to the folder of
    the comparison, as the command does.

    Args:
        experiment: As in :func:`run`; also an experiment with a section ``compare``.
        overrides: ``key.sub=value`` strings, for every run.
        strategies: The rows: strategies by name or as objects, instead of the experiment's rows.
        clients: Client plugins, each with each of the strategies.
        seeds: Seeds instead of the experiment's.
        rows: Labels of the rows to run; all by default.
        against: The row that the others are tested against; the first by default.
        jobs: Runs at once; by default one a core, or one at a time if the engine uses all cores.
        quiet: True for no progress bars.

    Raises:
        FedltError: If the comparison is not valid, or its rows differ in more than the method.
        RunError: If runs failed; the others are finished.
        KeyboardInterrupt: After an interrupt; the same call goes on.
    """
    given = [*overrides, *_seeds(seeds, overrides)]
    with _session(), _content(experiment, given, strategies, clients) as (tree, path):
        comparison = read_comparison(path, given, only=_texts(rows, "rows"), content=tree)
        try:
            with stopped_by_terminate():
                return _compared(comparison, against, _jobs(jobs), quiet=quiet)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same call goes on") from None


def _compared(
    comparison: Comparison, against: str, jobs: int | None, *, quiet: bool
) -> ComparisonTable:
    labels = [row.label for row in comparison.rows]
    points = [row.label for row in comparison.rows if comparison.is_point(row)]
    reference = pick_reference(labels, against, points=points)
    grid = [Setting({})]
    progress = _Silent() if quiet else make_runs_progress(Console(stderr=True))
    runs = planned_runs(comparison, grid)
    tables, outcomes = run_grid(comparison, grid, runs, jobs=jobs, progress=progress)
    folder = comparison.folder()
    if tables:
        write_rates(comparison)
        found, notes = conclusions(tables, MOMENT, reference)
        write_tables(folder, comparison.name, MOMENT, tables, notes, found)
    raise_failed(outcomes)
    return ComparisonTable(comparison.name, folder, tables[""], reference)


class _Silent(RunsProgress):
    """Progress of many runs that shows nothing."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))


@contextmanager
def _session() -> Iterator[None]:
    """Let a block use the working directory's modules, and give back what a run changes.

    Raises:
        FedltError: For an error of the system about a file; one line.
    """
    if in_notebook():
        _quiet_widgets()
    added = add_import_paths([str(Path.cwd())])  # module:Class may lie in the working directory
    try:
        with borrowed_process():
            yield
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        raise FedltError(f"{error.filename}: {error.strerror}") from error
    finally:
        sys.path[:] = [path for path in sys.path if path not in added]


def _quiet_widgets() -> None:
    """Let Ray not ask for a package of notebook widgets, which nothing here needs."""
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="IProgress not found")


@contextmanager
def _content(
    experiment: Source,
    overrides: Sequence[str],
    strategies: Sequence[Method] = (),
    clients: Sequence[Method] = (),
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield an experiment's content as plain data, with the file that it comes from.

    Session code of its objects is on disk inside the block; if the block fails before a run has
    begun with new code, that code is removed.

    Raises:
        FedltError: If there is no such experiment, or a value cannot stand in one.
    """
    for override in overrides:
        if not isinstance(override, str):
            raise FedltError(f"override {override!r}: expected text, such as 'local.lr=0.1'")
    tree, path = _read(experiment)
    output = str(parse_options(overrides).get("output") or tree.get("output") or "runs")
    plain = PlainTree(tree, Path(output_folder(output, _CODE)) / _CODE)
    if strategies or clients:
        plain.tree["compare"] = {"rows": _rows(plain, strategies, clients)}
    plain.write()
    try:
        yield plain.tree, path
    except FedltError:
        plain.remove()
        raise


def _read(experiment: Source) -> tuple[dict[str, Any], Path]:
    if isinstance(experiment, Config):
        tree = experiment.model_dump(mode="json")
        tree.pop("seed" if experiment.seeds is not None else "seeds")
        return tree, _HERE
    if isinstance(experiment, Mapping):
        return dict(experiment), _HERE
    if not isinstance(experiment, (str, os.PathLike)):
        kind = type(experiment).__name__
        raise FedltError(f"an experiment is a name, a path or a dictionary, not a {kind}")
    path = find_experiment(os.fspath(experiment))
    return read_mapping(path), path


def _rows(
    plain: PlainTree, strategies: Sequence[Method], clients: Sequence[Method]
) -> dict[str, Any]:
    """Return the rows of a comparison: every strategy with every client plugin, by label."""
    rows: dict[str, Any] = {}
    for strategy in _listed(strategies, "strategies") or [None]:
        for client in _listed(clients, "clients") or [None]:
            named = {"strategy": strategy, "client": client}
            pair = {key: plain.plain(one, key) for key, one in named.items() if one is not None}
            label = " + ".join(map(_label, pair.values()))
            if label in rows:
                raise FedltError(f"strategies and clients: {label} is given twice")
            rows[label] = {key: _section(one, key) for key, one in pair.items()}
    return rows


def _section(method: str | Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the section of a method; a relative path starts at the working directory."""
    return {"name": with_paths(method, Path.cwd(), key)} if isinstance(method, str) else method


def _label(method: str | Mapping[str, Any]) -> str:
    """Return a row's label: a name as it is; of an object the class and the hyperparameters."""
    if isinstance(method, str):
        return method
    options = ", ".join(f"{key}={value}" for key, value in method.items() if key != "name")
    name = str(method["name"]).rpartition(":")[2]
    return f"{name} ({options})" if options else name


def _listed(given: Sequence[Method], name: str) -> list[Method]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        words = f"{name}: expected a list, such as {name}=['fedavg', 'fedrod']"
        if name == "rows":
            words += " of labels; rows are defined in the experiment, under compare.rows"
        raise FedltError(words)
    return list(given)


def _texts(given: Sequence[str], name: str) -> list[str]:
    return [str(one) for one in _listed(given, name)]


def _seeds(seeds: Sequence[int], overrides: Sequence[str]) -> list[str]:
    """Return seeds as an override.

    Raises:
        FedltError: If ``seeds`` is no list of whole numbers, or an override names seeds, too.
    """
    if isinstance(seeds, (str, int)) or any(int(seed) != seed for seed in seeds):
        raise FedltError(f"seeds: {seeds!r} is no list of whole numbers, such as [1, 2, 3]")
    if not len(seeds):
        return []
    for override in overrides:
        if str(override).partition("=")[0].strip() in ("seed", "seeds"):
            raise FedltError(f"override {override!r}: seeds= says another; give one")
    return [f"seeds=[{', '.join(str(int(seed)) for seed in seeds)}]"]


def _jobs(jobs: int | None) -> int | None:
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise FedltError(f"jobs: {jobs!r} is no number of runs at once; expected 1 or more")
    return jobs
