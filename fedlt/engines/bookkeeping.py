"""The record of a run, which its driver writes: evaluations, lines of rounds.jsonl, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlt.config import Config
from fedlt.engines.engine import Engine
from fedlt.evaluation.patience import stopped
from fedlt.federation import Parties
from fedlt.federation.evaluator import Evaluator, GenericModel, Standing
from fedlt.federation.ledger import Ledger, RoundOutcome
from fedlt.federation.packing import load_run, save_run, unpack
from fedlt.federation.privacy_record import PrivacyRecord
from fedlt.flower.adapter import ServerHalf
from fedlt.machine.stopping import Stops
from fedlt.progress import Progress
from fedlt.runs.checkpoints import Checkpoint
from fedlt.runs.directory import RunDirectory
from fedlt.runs.files import ROUNDS
from fedlt.runs.recorded import cut_rounds
from fedlt.runs.trackers import Trackers
from fedlt.worker.diagnosis import Diagnosis


@dataclass
class Bookkeeping:
    """The record of one run: its ledger, and what is measured and saved after a round."""

    server: ServerHalf
    parties: Parties
    directory: RunDirectory
    progress: Progress
    generic: GenericModel = "shared"  # kind of generic model

    def __post_init__(self) -> None:
        """Make the evaluator and the ledger."""
        self.config: Config = self.parties.view.config
        plan, observer = self.server.privacy, self.parties.observer
        self.privacy = None if plan is None else PrivacyRecord(plan, observer)
        self.rounds = self.config.rounds if plan is None else plan.last_round
        self.evaluator = Evaluator(observer, self.server.model, self.generic, self.rounds)
        self.diagnosis = Diagnosis(self.parties.shares, self.evaluator)
        self.trackers = Trackers(self.directory.path / "trackers", self.config)
        self.ledger = Ledger(np.zeros(self.parties.view.num_clients, dtype=np.int64))
        self.stops = Stops()
        self._saved: tuple[int, bool] | None = None  # last checkpoint: round, no more due
        self._clock = time.perf_counter()  # time up to which seconds are counted

    def count_seconds(self) -> None:
        """Add the seconds since the last call to the ledger."""
        now = time.perf_counter()
        self.ledger.seconds += now - self._clock
        self._clock = now

    def note(self, outcome: RoundOutcome) -> None:
        """Enter the outcome of a round in the ledger; its evaluation is due then."""
        self.ledger.note(outcome)
        if self.privacy is not None and self.ledger.due is not None:
            self.ledger.due |= self.privacy.of_round(outcome, self.ledger)

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
            at_nodes=engine.at_nodes,
        )

    def is_stopped(self, *rows: dict[str, Any]) -> bool:
        """Return True if the run ends after the rows of ``rounds.jsonl`` and these rows."""
        rule = self.config.stop
        return rule is not None and stopped(rule, [*self.directory.rounds(), *rows]) is not None

    def evaluate(
        self, engine: Engine, round_: int, *, personal: bool, keep_logits: bool
    ) -> dict[str, Any]:
        """Return the entries of a round's line, after scoring the models."""
        values, evaluation = self.evaluator.evaluate(
            self.standing(engine, round_),
            engine.run_scores,
            personal=personal,
            keep_logits=keep_logits,
        )
        self.tell(engine.news())
        once = not self.ledger.evaluations
        self.ledger.evaluations |= self.directory.write_evaluation(evaluation, once=once)
        faults = self.server.faults
        late = 0 if faults is None else faults.late(round_)
        spent = {} if self.privacy is None else self.privacy.spent(round_)
        return values | self.ledger.metrics(late if self.config.faults.is_set else None) | spent

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

    def tell(self, lines: Iterable[str]) -> None:
        """Show lines of news to the user."""
        for line in lines:
            self.progress.note(line)

    def start_clock(self) -> None:
        """Count seconds from now on."""
        self._clock = time.perf_counter()
