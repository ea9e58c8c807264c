"""Cost of planned runs before they begin: time, memory, and disk (``fedlt estimate``).

Each row of each setting is tried on its first seed: a few steps of the real task, as before a run.
Its other seeds cost the same; a row that is finished is not tried. Nothing is written, except what
a client plugin prepares for the runs (synthetic images, which the runs find in the cache).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.comparing.schedule import PlannedRun, jobs_for
from fedlt.comparing.sheet import DASH, Cell, Sheet
from fedlt.engines import check_engine
from fedlt.engines.auto import Choice, weigh_engines
from fedlt.engines.rehearsal import rehearse
from fedlt.federation import Parties, prepare_parties
from fedlt.federation.faults import Faults
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.progress import Progress, round_time
from fedlt.runs.directory import RunDirectory
from fedlt.runs.overview import last_saved
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from fedlt.config import Config
    from fedlt.flower.adapter import ServerHalf

_FILE_BYTES = 5000  # of an evaluation without its counts; a count takes about a byte, compressed
_COUNTS = 47  # counts of a class in an evaluation, beside its row of the confusion matrix


@dataclass(frozen=True)
class RunCost:
    """Estimated cost of the runs of one row: equal runs with different seeds."""

    label: str
    runs: int  # all seeds
    left: float  # runs that are left; a fraction for a run that has begun
    engine: str
    rounds: int
    seconds: float | None  # of one whole run; None: not tried, or no estimate of the engine
    memory: int | None  # bytes, of all processes of a run
    disk: int | None  # bytes of one finished run; None: not tried


@dataclass(frozen=True)
class TotalCost:
    """Estimated cost of all runs of a command."""

    runs: int
    finished: int
    jobs: int  # runs at once
    seconds: float | None  # until all runs are finished; None: unknown for some row
    memory: int | None  # bytes, of the runs at once
    disk: int  # bytes that the runs which are left will write


def estimate_runs(
    runs: Sequence[PlannedRun],
    *,
    jobs: int | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> tuple[list[RunCost], TotalCost]:
    """Return the cost of each row, and of all runs together.

    Args:
        runs: The planned runs, seeds of a row one after the other.
        jobs: Runs at once; None: one per core for engines of one core.
        progress: Returns the progress of preparing a row, by its label.

    Raises:
        FedltError: If a run cannot be prepared, or a trial fails.
    """
    rows: dict[str, list[PlannedRun]] = {}
    for planned in runs:
        rows.setdefault(planned.label, []).append(planned)
    costs = [
        _row_cost(label, own, Progress() if progress is None else progress(label))
        for label, own in rows.items()
    ]
    return costs, _total(costs, jobs_for(runs, jobs))


def _row_cost(label: str, runs: Sequence[PlannedRun], progress: Progress) -> RunCost:
    first = runs[0].config
    left = sum(_left(planned.config) for planned in runs)
    engine, known, disk = first.engine.name, None, None
    if left:
        choice, disk = _tried(first, progress)
        engine, known = choice.name, choice.estimates.get(choice.name)
    return RunCost(
        label=label,
        runs=len(runs),
        left=left,
        engine=engine,
        rounds=first.rounds,
        seconds=None if known is None else known.seconds,
        memory=None if known is None else known.memory,
        disk=disk,
    )


def _left(config: Config) -> float:
    """Return the share of a run that is left: 0 if it is finished, 1 if it has not begun."""
    directory = RunDirectory.of(config)
    if directory.state == "finished":
        return 0.0
    return 1 - min(last_saved(directory.checkpoints), config.rounds) / config.rounds


def _tried(config: Config, progress: Progress) -> tuple[Choice, int]:
    """Return the choice of an engine, and the bytes of a finished run's folder."""
    prepare_process()
    check_engine(config.engine.name)
    strategy, plugin = resolve_strategy(config), resolve_client(config)
    try:
        parties = prepare_parties(config, strategy, plugin, progress=progress)
    finally:
        progress.stop()
    server = make_server_half(parties.view, Faults.of(parties.observer))
    host = rehearse(parties, server).host
    choice = weigh_engines(config.engine.name, server, host, parties)
    return choice, _disk(parties, server, choice)


def _disk(parties: Parties, server: ServerHalf, choice: Choice) -> int:
    """Return the bytes of a run directory: two checkpoints, the evaluations, the last logits."""
    probe, observer = choice.probe, parties.observer
    tensors = [t for group in server.snapshot().tensors.values() for t in group.values()]
    states = parties.view.num_clients * probe.personal
    classes, images = observer.num_classes, len(observer.data.eval_labels)
    heads = len(parties.view.strategy.generic(server.model, server.state.broadcast))
    scored = observer.config.evaluate.clients
    clients = parties.view.num_clients if scored == "all" else scored
    counts = heads * (classes + _COUNTS) * classes + 2 * clients * (heads + 1) * classes
    evaluations = probe.evaluations * (_FILE_BYTES + counts)
    logits = 2 * heads * images * classes  # float16
    return 2 * (sum(tensor.nbytes for tensor in tensors) + states) + evaluations + logits


def _total(costs: Sequence[RunCost], jobs: int) -> TotalCost:
    todo = [cost for cost in costs if cost.left]
    known = [c for c in todo if c.seconds is not None and c.memory is not None]
    work = sum((cost.seconds or 0.0) * cost.left for cost in known)
    longest = max((min(cost.left, 1) * (cost.seconds or 0.0) for cost in known), default=0.0)
    sizes = [cost.memory or 0 for cost in known for _ in range(math.ceil(cost.left))]
    runs = sum(cost.runs for cost in costs)
    return TotalCost(
        runs=runs,
        finished=runs - sum(math.ceil(cost.left) for cost in todo),
        jobs=jobs,
        seconds=max(work / jobs, longest) if len(known) == len(todo) else None,
        memory=sum(sorted(sizes)[-jobs:]) if len(known) == len(todo) else None,
        disk=round(sum((cost.disk or 0) * cost.left for cost in todo)),
    )


def cost_sheet(costs: Sequence[RunCost]) -> Sheet:
    """Return the table of costs, a line per row."""
    rows: list[list[str | Cell]] = [
        [
            cost.label,
            f"{cost.left:.3g} of {cost.runs}",
            cost.engine,
            str(cost.rounds),
            DASH if cost.seconds is None else round_time(cost.seconds),
            DASH if cost.memory is None else size_text(cost.memory),
            DASH if cost.disk is None else size_text(cost.disk),
        ]
        for cost in costs
    ]
    return Sheet("", ["runs of", "left", "engine", "rounds", "time each", "memory", "disk"], rows)


def total_text(total: TotalCost) -> str:
    """Return the cost of all runs as one line."""
    runs = f"{total.runs} run{'s' if total.runs != 1 else ''}"
    if total.finished:
        runs += f", {total.finished} of them finished"
    time = "unknown" if total.seconds is None else round_time(total.seconds)
    memory = "unknown" if total.memory is None else size_text(total.memory)
    jobs = f"{total.jobs} at once"
    return f"{runs}: {time}, {jobs}; memory {memory}; disk {size_text(total.disk)}"


def size_text(size: int) -> str:
    """Return a number of bytes as MiB, or as GiB from one GiB on."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
