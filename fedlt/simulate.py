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

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from fedlt.config import Config
from fedlt.config.loading import check_spec
from fedlt.data.datasets import check_name as check_data_set
from fedlt.data.partition import read_content
from fedlt.engines import check_engine, engine_class
from fedlt.engines.auto import choose_engine
from fedlt.engines.engine import Engine
from fedlt.engines.foreign import as_engine
from fedlt.engines.rehearsal import rehearse
from fedlt.errors import FedltError
from fedlt.evaluation.patience import check_metric, stopped
from fedlt.federation import Parties, prepare_parties
from fedlt.federation.evaluator import Evaluator, GenericModel, Standing
from fedlt.federation.faults import Faults
from fedlt.federation.feature_cache import check_settings
from fedlt.federation.ledger import Ledger
from fedlt.federation.packing import load_run, save_run, unpack
from fedlt.federation.result import make_result
from fedlt.federation.start import check_weights
from fedlt.flower.adapter import ServerHalf
from fedlt.flower.server_app import make_server_app
from fedlt.flower.server_half import make_server_half
from fedlt.machine.stopping import Stops
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.models.backbones import check_backbone
from fedlt.progress import Progress
from fedlt.runs.checkpoints import Checkpoint, state_folder
from fedlt.runs.claims import claimed
from fedlt.runs.creation import create_run
from fedlt.runs.directory import Action, RunDirectory
from fedlt.runs.endings import explained
from fedlt.runs.files import ROUNDS, plain
from fedlt.runs.fingerprint import fingerprint, fingerprints
from fedlt.runs.recorded import cut_rounds
from fedlt.runs.trackers import Trackers, check_trackers
from fedlt.worker.diagnosis import Diagnosis
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
        _decide(one, resume=resume, overwrite=overwrite)


def _decide(config: Config, *, resume: bool, overwrite: bool) -> Action:
    """Return the action that a run asks for in its folder.

    Raises:
        FedltError: If the folder does not allow it; but a mistake in the configuration is named
            first, since a corrected configuration may be that of the folder.
    """
    try:
        return RunDirectory.of(config).decide(config, resume=resume, overwrite=overwrite)
    except FedltError:
        check_data_set(config.data.dataset)
        check_spec(config.data.dataset, "data.dataset")
        if config.partition.file is not None:
            read_content(config.partition.file, f"partition.file {config.partition.file!r}")
        check_backbone(**config.model.network())
        check_weights(config.model.weights)
        check_settings(config)
        raise


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
    action = _decide(config, resume=resume, overwrite=overwrite)
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
    wait = engine_class(name).prepare(config.engine)
    try:
        parties = prepare_parties(config, *method, progress=progress)
        found = fingerprint(config, parties.observer.data)
        if action == "resume":
            directory.check(found, purpose="resumed")
        server = make_server_half(parties.view, Faults.of(parties.observer))
        rehearsal = rehearse(parties, server)
        if action == "start" and (estimate or name == "auto"):
            name, lines = choose_engine(name, server, rehearsal.host, parties)
            for line in lines:
                progress.note(line)
        generic = rehearsal.generic
        if config.stop is not None:
            check_metric(config.stop, has_generic=generic != "none")
        notes = parties.observer.notes() + rehearsal.notes()
        del rehearsal
    finally:
        wait()
    with engine_class(name)(parties) as engine, explained(directory):
        engine.rehearse(server)
        for line in notes:
            progress.note(line)
        if action == "start":
            data = parties.observer.data
            create_run(
                directory,
                config,
                data.partition,
                found,
                overwrite=overwrite,
                engine=name,
                client_names=data.client_names,
            )
        with directory.lock():
            simulation = Simulation(server, parties, directory, progress, generic)
            personal = state_folder(directory.checkpoints)
            engine.states().spill_to(personal, config.engine.personal_memory)
            if action == "resume":
                simulation.restore(engine)
            make_server_app(simulation.main)(engine, Context(1, 1, {}, RecordDict(), {}))
    return directory.result()


@dataclass
class Simulation:
    """Simulation of one run: the loop over rounds, with server, scoring and record."""

    server: ServerHalf
    parties: Parties
    directory: RunDirectory
    progress: Progress
    generic: GenericModel = "shared"  # kind of generic model

    def __post_init__(self) -> None:
        """Make the evaluator and the ledger."""
        self.config: Config = self.parties.view.config
        self.evaluator = Evaluator(self.parties.observer, self.server.model, self.generic)
        self.diagnosis = Diagnosis(self.parties.shares, self.evaluator)
        self.trackers = Trackers(self.directory.path / "trackers", self.config)
        self.ledger = Ledger(np.zeros(self.parties.view.num_clients, dtype=np.int64))
        self.stops = Stops()
        self._is_whole = True  # models, personal states and ledger are of the same round
        self._saved: tuple[int, bool] | None = None  # last checkpoint: round, no more due
        self._clock = time.perf_counter()  # time up to which seconds are counted

    def main(self, grid: Grid, context: Context) -> None:
        """Run the remaining rounds on any Flower grid: the loop over rounds."""
        engine, rounds = as_engine(grid, self.parties), self.config.rounds
        self.progress.start(rounds, self.server.state.round)
        self.trackers.start(self.directory.rounds())
        self._clock = time.perf_counter()
        with self.stops:
            try:
                if self.ledger.due is not None:  # the last session was stopped before
                    self._finish(engine)
                for round_ in range(self.server.state.round + 1, rounds + 1):
                    if self._is_stopped():
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
            self.ledger.note(outcome)
            self._count_seconds()
            self._is_whole = True
        for line in outcome.notes():
            self.progress.note(line)

    def _finish(self, engine: Engine) -> None:
        """Evaluate and diagnose the last round, write its line, and save a checkpoint if due."""
        row: dict[str, Any] = {}
        round_ = self.server.state.round
        generic, personal = self.evaluator.is_due(round_)
        last = round_ == self.config.rounds
        if generic:
            row = self._evaluate(engine, round_, personal=personal, keep_logits=last)
        if generic and not last and self._is_stopped({"round": round_, **row}):
            row, last = self._evaluate(engine, round_, personal=True, keep_logits=True), True
        if self.diagnosis.is_due(round_, last=last):
            row |= self.diagnosis.measure(self.standing(engine, round_))
        self._count_seconds()
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

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.ledger.seconds += now - self._clock
        self._clock = now

    def standing(self, engine: Engine, round_: int) -> Standing:
        """Return the models after a round, for scoring."""
        personal = engine.states()
        steps = self.ledger.steps if personal else np.zeros_like(self.ledger.steps)
        state = self.server.state
        return Standing(
            round=round_,
            broadcast=state.broadcast,
            fixed=state.fixed,
            personal=personal,
            participated=self.server.trained,
            steps=steps,
            global_counts=self.server.prior_counts([]),
        )

    def _is_stopped(self, *rows: dict[str, Any]) -> bool:
        """Return True if the run ends after the rows of ``rounds.jsonl`` and these rows."""
        rule = self.config.stop
        return rule is not None and stopped(rule, [*self.directory.rounds(), *rows]) is not None

    def _evaluate(
        self, engine: Engine, round_: int, *, personal: bool, keep_logits: bool
    ) -> dict[str, Any]:
        """Return the entries of a round's line, after scoring the models."""
        values, evaluation = self.evaluator.evaluate(
            self.standing(engine, round_),
            engine.run_scores,
            personal=personal,
            keep_logits=keep_logits,
        )
        once = not self.ledger.evaluations
        self.ledger.evaluations |= self.directory.write_evaluation(evaluation, once=once)
        faults = self.server.faults
        late = 0 if faults is None else faults.late(round_)
        return values | self.ledger.metrics(late if self.config.faults.is_set else None)

    def save(self, engine: Engine) -> None:
        """Write a checkpoint of the last round, which may still await its evaluation."""
        now = (self.server.state.round, self.ledger.due is None)
        if now != self._saved:
            with self.stops.held():
                save_run(self.directory, self.server.snapshot(), self.ledger, engine.states())
                self._saved = now

    def restore(self, engine: Engine) -> None:
        """Restore the newest checkpoint; without a checkpoint, the start of the run."""
        self.directory.check_partition(self.parties.observer.data.partition)
        checkpoint = load_run(self.directory)
        if checkpoint is not None:
            self.take(checkpoint, engine)
        cut_rounds(self.directory.path / ROUNDS, self.ledger.rounds_length)

    def take(self, checkpoint: Checkpoint, engine: Engine) -> None:
        """Restore a checkpoint of this run; nothing is written."""
        server, self.ledger, states = unpack(checkpoint, self.parties.view.num_clients)
        self.server.restore(server)
        engine.states().restore(states, round=checkpoint.round)
        self._saved = (checkpoint.round, self.ledger.due is None)
