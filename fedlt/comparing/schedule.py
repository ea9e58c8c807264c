"""Schedule of many runs, several at once, in processes that each do one run after the other.

A finished run is read, an unfinished run is resumed, so a stopped comparison continues when started
again. A finished run of the same configuration elsewhere in the folder of the comparison is read
too. A run that fails is named at the end; the other runs go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.comparing.display import Relay, RunsProgress
from fedlt.comparing.processes import run_in_processes
from fedlt.errors import FedltError, RunError, one_line

if TYPE_CHECKING:
    from fedlt.config import Config

ALONE = ("serial", "stacked")  # engines that use one core


@dataclass(frozen=True)
class PlannedRun:
    """Planned run of a comparison."""

    label: str
    config: Config

    def __str__(self) -> str:
        """Return the name of the run in the progress display."""
        return f"{self.label}, seed {self.config.seed}"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a planned run."""

    planned: PlannedRun
    result: dict[str, Any] | None  # with path and conditions; None: the run failed
    reason: str = ""  # of a failure


def jobs_for(runs: Sequence[PlannedRun], wanted: int | None) -> int:
    """Return the number of parallel runs: ``wanted``, else one per core for one-core engines."""
    if wanted is not None:
        return max(1, wanted)
    alone = all(planned.config.engine.name in ALONE for planned in runs)
    return max(1, min(len(runs), len(os.sched_getaffinity(0)))) if alone else 1


def run_planned(
    runs: Sequence[PlannedRun],
    *,
    jobs: int,
    progress: RunsProgress,
    within: Path | None = None,
) -> list[Outcome]:
    """Return the outcomes of all runs after running them, in the order of ``runs``.

    Args:
        runs: The planned runs, with different run directories.
        jobs: Number of runs at once.
        progress: Is told about runs and rounds.
        within: The folder to search for finished runs of the same configurations.
    """
    found = _finished(runs, within)  # all runs are checked before a run starts
    rest = [n for n in range(len(runs)) if n not in found]
    left = [runs[n] for n in rest]
    progress.begin(list(map(str, left)), [planned.config.rounds for planned in left], len(found))
    if line := _nameless([*found.values()]):
        progress.note(line)
    try:
        with closing(_outcomes(left, jobs, progress.advance)) as outcomes:
            for number, outcome in outcomes:
                found[rest[number]] = outcome
                progress.finish(number, _describe(outcome))
    finally:
        progress.stop()
    return [found[n] for n in range(len(runs))]


def _nameless(found: Sequence[Outcome]) -> str:
    """Return a line about finished runs that hold no names of clients, where these are wanted."""
    from fedlt.runs.directory import RunDirectory

    known = [(Path(one.result["path"]), one.planned) for one in found if one.result is not None]
    count = sum(RunDirectory(path).lacks_names(planned.config) for path, planned in known)
    if not count:
        return ""
    runs = "1 finished run holds" if count == 1 else f"{count} finished runs hold"
    return f"report.client_names: {runs} no names; another name=... runs them anew, with names"


def _finished(runs: Sequence[PlannedRun], within: Path | None) -> dict[int, Outcome]:
    """Return the outcomes of finished runs, by position.

    Raises:
        FedltError: If a directory holds another run: another configuration, data or code.
    """
    from fedlt.comparing.stored import finished_below, read_finished
    from fedlt.config import config_hash
    from fedlt.runs.directory import RunDirectory
    from fedlt.runs.fingerprint import fingerprints

    places: dict[int, RunDirectory] = {}
    twins: set[int] = set()
    stored: dict[str, Path] | None = None
    for number, planned in enumerate(runs):
        directory = RunDirectory.of(planned.config)
        action = directory.decide(planned.config, resume=True)
        if action == "show":
            places[number] = directory
        elif action == "start" and within is not None:
            stored = finished_below(within) if stored is None else stored
            if twin := stored.get(config_hash(planned.config)):
                places[number] = RunDirectory(twin)
                twins.add(number)
    found: dict[int, Outcome] = {}
    made = fingerprints(runs[number].config for number in places)
    for (number, directory), one in zip(places.items(), made, strict=True):
        try:
            directory.check(one)
            result = read_finished(directory, runs[number].config)
        except FedltError:
            if number not in twins:  # a run elsewhere that is not the same after all is not needed
                raise
        else:
            found[number] = Outcome(runs[number], result)
    return found


def _outcomes(
    runs: Sequence[PlannedRun], jobs: int, hear: Callable[[int, int], None]
) -> Generator[tuple[int, Outcome]]:
    """Yield (position, outcome) as runs end; ``hear`` gets (position, finished rounds)."""
    if jobs <= 1:
        for number, planned in enumerate(runs):
            yield number, run_one(planned, partial(hear, number))
    else:
        yield from run_in_processes(run_one, runs, processes=jobs, lost=_lost, hear=hear)


def _lost(planned: PlannedRun, code: int) -> Outcome:
    return Outcome(planned, None, f"its process ended with exit code {code}")


def run_one(planned: PlannedRun, tell: Callable[[int], None]) -> Outcome:
    """Return the outcome of a run, started, resumed or read; ``tell`` gets finished rounds."""
    from fedlt.comparing.stored import read_finished
    from fedlt.runs.directory import RunDirectory
    from fedlt.simulate import run

    try:
        run(planned.config, resume=True, progress=Relay(tell))
        return Outcome(planned, read_finished(RunDirectory.of(planned.config), planned.config))
    except (FedltError, RunError) as error:
        return Outcome(planned, None, one_line(error))


def _describe(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.planned}: failed: {outcome.reason}"
    from fedlt.evaluation.headline import scored_set

    known = scored_set(outcome.result).told(outcome.result["last_k"])
    return f"{outcome.planned}: {', '.join(known)}, {outcome.result['seconds']:.0f} s"
