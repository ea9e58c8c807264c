"""Read this first: from a configuration to a finished run.

    config -> strategy, plugin -> parties (data, partition) -> server, engine -> rounds -> result

A round, in the order of `Simulation._train` and `Simulation._finish`:

    cohort  = server.cohort(round, engine)            # clients sampled by (seed, round)
    plan    = server.plan(round, cohort)              # clients that will answer; faults
    tasks   = server.tasks(round, plan)               # one message per client: broadcast, settings
    replies = engine.train(tasks)                     # serial, Ray or stacked; summed in parts
        # on a worker, per client:
        #   load broadcast + personal state into one scratch model
        #   plugin.batches, .views -> strategy.objective -> SGD step, local.epochs times
        #   Update: weighted sums, metrics; personal state apart
    outcome = server.aggregate(round, plan, replies)  # the sum, and the strategy's step
    server.adopt(outcome)                             # all three lines take effect, or none:
    engine.commit(outcome.used)                       #   personal states of the clients in the sum
    ledger.note(outcome)                              #   the record; the round is finished now
    evaluate and diagnose; a line in rounds.jsonl     # both views, from integer counts
    checkpoint

A run that stops (Ctrl-C, an error in an evaluation) leaves a checkpoint of its last finished round;
--resume begins with the evaluation of that round, if still due.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from fedlt.config import Config
from fedlt.engines import check_engine, engine_class
from fedlt.engines.bookkeeping import Bookkeeping
from fedlt.engines.engine import Engine
from fedlt.engines.preparing import PreparedRun, decide_action, prepare_run
from fedlt.evaluation.patience import stopped
from fedlt.federation.result import make_result
from fedlt.flower.server_app import make_server_app
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.progress import Progress
from fedlt.runs.checkpoints import state_folder
from fedlt.runs.claims import claimed
from fedlt.runs.creation import create_run
from fedlt.runs.directory import Action, RunDirectory
from fedlt.runs.endings import explained
from fedlt.runs.files import plain
from fedlt.runs.fingerprint import fingerprints
from fedlt.runs.trackers import check_trackers
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.strategy import Strategy


def check_runs(config: Config, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raise for all mistakes that can be found before the first of several runs starts.

    Args:
        config: The runs; one per seed of its ``seeds``.
        resume: As in :func:`run`.
        overwrite: As in :func:`run`.

    Raises:
        FedltError: If a run cannot be started, resumed or shown, or its method cannot be made.
    """
    check_engine(config.engine.name)
    resolve_strategy(config)
    resolve_client(config)
    for one in config.runs():
        decide_action(one, resume=resume, overwrite=overwrite)


def run(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    estimate: bool = False,
) -> dict[str, Any]:
    """Run one configuration (one seed) and return the content of its ``result.json``.

    Nothing is written before the configuration and the method were tried.

    Args:
        config: The run; its ``seeds`` must be None.
        resume: Go on from the newest checkpoint of an unfinished run.
        overwrite: Start again where a run exists.
        progress: Is told about rounds; silent by default.
        estimate: True to estimate the time of the run before the first round.

    Raises:
        FedltError: If the configuration cannot be run.
        RunError: If the run cannot go on; its last checkpoint is intact.
    """
    prepare_process()
    check_engine(config.engine.name)
    method = resolve_strategy(config), resolve_client(config)
    directory = RunDirectory.of(config)
    action = decide_action(config, resume=resume, overwrite=overwrite)
    if action == "show":
        directory.check(fingerprints([config])[0])
        return directory.result()
    told = progress or Progress()
    with claimed(directory.path):
        return _carry_out(
            config, method, directory, action, told, overwrite=overwrite, estimate=estimate
        )


def _carry_out(
    config: Config,
    method: tuple[Strategy, ClientPlugin],
    directory: RunDirectory,
    action: Action,
    progress: Progress,
    *,
    overwrite: bool,
    estimate: bool,
) -> dict[str, Any]:
    """Return the result of a run, started or resumed; see :func:`run`."""
    check_trackers(config.trackers)
    name = directory.engine(config) if action == "resume" else config.engine.name
    engine_class(name).prepare(config.engine)
    found = prepare_run(config, method, directory, action, progress, engine=name, estimate=estimate)
    with engine_class(found.engine)(found.parties) as engine, explained(directory):
        context = Context(1, 1, {}, RecordDict(), {})
        conduct(found, engine, context, directory, action, progress, overwrite=overwrite)
    return directory.result()


def conduct(
    prepared: PreparedRun,
    engine: Engine,
    context: Context,
    directory: RunDirectory,
    action: Action,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> None:
    """Make the run directory, or take the newest checkpoint, and do the remaining rounds.

    Args:
        prepared: The run.
        engine: Runs the client tasks.
        context: Of the server app.
        directory: Of the run.
        action: ``start`` or ``resume``.
        progress: Is told about rounds.
        overwrite: Start again where a run exists.
    """
    engine.rehearse(prepared.server, prepared.probe)
    for line in prepared.notes:
        progress.note(line)
    parties, config = prepared.parties, prepared.parties.view.config
    if action == "start":
        data = parties.observer.data
        create_run(
            directory,
            config,
            data.partition,
            prepared.found,
            overwrite=overwrite,
            engine=prepared.engine,
            client_names=data.client_names,
        )
    with directory.lock():
        simulation = Simulation(prepared.server, parties, directory, progress, prepared.generic)
        personal = state_folder(directory.checkpoints)
        engine.states().spill_to(personal, config.engine.personal_memory)
        if action == "resume":
            simulation.restore(engine)
        make_server_app(simulation.main)(engine, context)


@dataclass
class Simulation(Bookkeeping):
    """Simulation of one run: the loop over rounds."""

    _is_whole: bool = field(default=True, init=False)  # models, states, ledger: of the same round

    def main(self, grid: Grid, context: Context) -> None:
        """Run the remaining rounds on an engine, which is a Flower grid: the loop over rounds."""
        assert isinstance(grid, Engine)
        engine, rounds = grid, self.rounds
        self.progress.start(rounds, self.server.state.round)
        self.trackers.start(self.directory.rounds())
        self.start_clock()
        with self.stops:
            try:
                if self.ledger.due is not None:  # the last session was stopped before
                    self._finish(engine)
                for round_ in range(self.server.state.round + 1, rounds + 1):
                    if self.is_stopped():
                        break
                    self._train(engine, round_)
                    self._finish(engine)
            except (Exception, KeyboardInterrupt, SystemExit):
                if self._is_whole:  # else the last checkpoint stays
                    self.save(engine)
                raise
            finally:
                self.progress.stop()
                self.trackers.finish()
        rows = self.directory.rounds()
        ended = stopped(self.config.stop, rows)
        if ended is not None and self.server.state.round < rounds:
            self.progress.note(
                f"stopped after round {self.server.state.round} of {rounds}: {ended['metric']} has "
                f"its best value {ended['best']:.4g} in round {ended['best_round']}"
            )
        result = make_result(self.evaluator, self.ledger, self.server.state, rows)
        if self.privacy is not None:
            result["privacy"] = self.privacy.result(self.server.state.round, self.ledger)
        result["peak_memory"] = engine.peak_memory()
        self.directory.write_result(result, self.ledger.evaluations)

    def _train(self, engine: Engine, round_: int) -> None:
        """Train a round and enter the outcome in the ledger; the evaluation is due then.

        If the server's step fails, nothing has changed.
        """
        server = self.server
        plan = server.plan(round_, server.cohort(round_, engine))
        replies = engine.train(server.tasks(round_, plan), reduce=server.reduces)
        with self.stops.held():
            outcome = server.aggregate(round_, plan, replies)
            self._is_whole = False
            server.adopt(outcome)
            engine.commit(outcome.used)
            self.note(outcome)
            self.count_seconds()
            self._is_whole = True
        self.tell([*engine.news(), *outcome.notes()])

    def _finish(self, engine: Engine) -> None:
        """Evaluate and diagnose the last round, write its line, and save a checkpoint if due."""
        row: dict[str, Any] = {}
        round_ = self.server.state.round
        generic, personal = self.evaluator.is_due(round_)
        last = round_ == self.rounds
        if generic:
            row = self.evaluate(engine, round_, personal=personal, keep_logits=last)
        if generic and not last and self.is_stopped({"round": round_, **row}):
            row, last = self.evaluate(engine, round_, personal=True, keep_logits=True), True
        if self.diagnosis.is_due(round_, last=last):
            row |= self.diagnosis.measure(self.standing(engine, round_))
        self.count_seconds()
        with self.stops.held():
            if row:
                row = {"round": round_, **row, "seconds": self.ledger.seconds}
                self.ledger.rounds_length = self.directory.append_round(row)
            self.ledger.due = None
        if row:
            self.trackers.log(plain(row))
        if round_ % self.config.checkpoint.every == 0 or last:
            self.save(engine)
        told = [*self.evaluator.scored_on.told(row), f"(round {round_})"]
        self.progress.advance(round_, "  ".join(told) if "generic/accuracy" in row else "")
