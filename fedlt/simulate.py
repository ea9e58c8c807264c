"""Read this first: from a configuration to a finished run.

    config -> strategy, plugin -> federation (data, partition) -> server, engine -> rounds -> result

One round:

    server  configure_train: sample the cohort, one message a client   flower/adapter.py, faults.py
    engine  map_reduce: client tasks, sums over parts of the cohort    engines/, client_app.py
    server  aggregate_train: add the sums, the strategy's step         adapter.py, strategies/
    engine  commit: the personal states of the clients in the sum      engines/base.py
    driver  evaluate, diagnose, write rounds.jsonl, checkpoint         evaluation/, runs.py
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedlt.checkpoints import Checkpoint, clean, load_checkpoint, save_checkpoint, state_folder
from fedlt.config import Config, config_hash
from fedlt.config.plugins import resolve_client, resolve_strategy
from fedlt.diagnosis import Diagnosis
from fedlt.engines import engine_class
from fedlt.engines.auto import choose_engine
from fedlt.engines.base import Engine
from fedlt.engines.foreign import as_engine
from fedlt.errors import FedltError, RunError, one_line
from fedlt.evaluation import evaluation_path, rounds_to_evaluate, save_evaluation, summarise
from fedlt.evaluation.evaluator import Evaluator, Standing
from fedlt.faults import FaultLog
from fedlt.federation import Federation, prepare_federation
from fedlt.flower.adapter import ServerHalf
from fedlt.flower.records import array_record
from fedlt.flower.server_app import make_server_app
from fedlt.flower.server_half import make_server_half
from fedlt.personal import Snapshot
from fedlt.rehearsal import GenericModel, rehearse
from fedlt.report.progress import Progress, SilentProgress
from fedlt.runs import RunDirectory, plain
from fedlt.scoring import touches_backbone
from fedlt.trackers import Trackers, check_trackers
from fedlt.worker import prepare_process

if TYPE_CHECKING:
    from fedlt.evaluation import Metric
    from fedlt.evaluation.headline import ScoredSet
    from fedlt.strategy import Tensors

__all__ = ["Simulation", "run"]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


def run(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    estimate: bool = False,
) -> dict[str, Any]:
    """Run one configuration (one seed) and return the content of its ``result.json``.

    Nothing is written before everything that can be wrong with the configuration was tried.

    Args:
        config: The run; its ``seeds`` must be None.
        resume: Go on from the newest checkpoint of an unfinished run.
        overwrite: Start again where a run exists.
        progress: Is told about rounds; silent by default.
        estimate: Whether to tell before the first round how long the run takes.

    Raises:
        FedltError: If the configuration cannot be run.
        RunError: If the run cannot go on; its last checkpoint is intact.
    """
    prepare_process()
    strategy, plugin = resolve_strategy(config), resolve_client(config)
    directory = RunDirectory.of(config)
    action = directory.decide(config, resume=resume, overwrite=overwrite)
    if action == "show":
        return directory.result()
    check_trackers(config.trackers)
    name = directory.engine(config) if action == "resume" else config.engine.name
    wait = engine_class(name).prepare(config.engine)
    try:
        federation = prepare_federation(config, strategy, plugin, progress=progress)
        server = make_server_half(federation)
        rehearsal = rehearse(federation, server)
        if action == "start" and (estimate or name == "auto"):
            name, lines = choose_engine(name, server, rehearsal.worker)
            for line in lines:
                (progress or SilentProgress()).note(line)
        generic = rehearsal.generic
        notes = federation.notes() + rehearsal.notes()
        del rehearsal
        for line in notes:
            (progress or SilentProgress()).note(line)
    finally:
        wait()
    with engine_class(name)(federation) as engine, _explained(directory):
        engine.rehearse(server)
        if action == "start":
            directory.create(config, federation.data.partition, overwrite=overwrite, engine=name)
        with directory.lock():
            simulation = Simulation(server, directory, progress or SilentProgress(), generic)
            personal = state_folder(directory.checkpoints)
            engine.states().spill_to(personal, config.engine.personal_memory)
            if action == "resume":
                simulation.restore(engine)
            context = Context(1, 1, {}, RecordDict(), {})
            make_server_app(simulation.main)(engine, context)
    return directory.result()


@contextmanager
def _explained(directory: RunDirectory) -> Iterator[None]:
    """Turn what a method raises in the middle of a run into one line; keep the whole traceback."""
    try:
        yield
    except (FedltError, RunError):
        raise
    except Exception as error:
        cause = getattr(error, "cause", None) or error  # Ray wraps what a worker raised
        where = "".join(f"{note}: " for note in dict.fromkeys(getattr(cause, "__notes__", ())))
        if isinstance(error, OSError) and error.errno in _DISK and not where:
            reason = f"{directory.path} cannot be written: {error.strerror}"
            raise RunError(f"{reason}; --resume goes on from its last checkpoint") from error
        path = directory.path / "error.txt"
        line = f"{where}{one_line(cause)}"
        with suppress(OSError):
            path.write_text(traceback.format_exc(), encoding="utf-8")
            line = f"{line}; the traceback is in {path}"
        raise RunError(line) from error


@dataclass
class Simulation:
    """One run: the loop, and what it remembers besides the server's state."""

    server: ServerHalf
    directory: RunDirectory
    progress: Progress
    generic: GenericModel = "shared"  # what the generic model is made of
    seconds: float = 0.0  # of training and evaluation, over all sessions of the run
    excluded: list[list[int]] = field(default_factory=list)  # [round, cid] of unused updates
    fault_log: FaultLog = field(default_factory=FaultLog)  # what went wrong, injected or found
    bytes_up: int = 0  # a client's answer of one round, largest so far

    def __post_init__(self) -> None:
        """Make the evaluator and the per-client counts."""
        self.config: Config = self.federation.config
        borrowed = self.server.model.names("personal") if self.generic == "average" else ()
        has_generic = self.generic != "none"
        own = self._has_own_backbone
        self.evaluator = Evaluator(self.federation, own, borrowed, has_generic=has_generic)
        self.diagnosis = Diagnosis(self.evaluator)
        self.trackers = Trackers(self.directory.path / "trackers", self.config)
        self.steps = np.zeros(self.federation.num_clients, dtype=np.int64)

    @property
    def federation(self) -> Federation:
        """The federation of the server half."""
        return self.server.federation

    def main(self, grid: Grid, context: Context) -> None:
        """Run the rounds that are left on any Flower grid: this is the loop."""
        server, rounds = self.server, self.config.rounds
        engine = as_engine(grid, self.federation)
        generic, personal = self._schedule()
        arrays = array_record(server.state.broadcast)
        self.progress.start(rounds, server.state.round)
        self.trackers.start(self.directory.rounds())
        start = time.perf_counter() - self.seconds
        whole = server.state.round  # the last round of which nothing is missing
        try:
            for round_ in range(server.state.round + 1, rounds + 1):
                messages = server.configure_train(round_, arrays, ConfigRecord(), engine)
                if messages:
                    send = engine.map_reduce if server.reduces else engine.send_and_receive
                    arrays, metrics = server.aggregate_train(round_, send(messages))
                else:
                    metrics = server.pass_round(round_)
                engine.commit(server.finite)
                self._note(round_, metrics)
                text = ""
                row: dict[str, Any] = {}
                if round_ in generic:
                    row = self._evaluate(engine, round_, metrics, personal=round_ in personal)
                if self.diagnosis.is_due(round_):
                    row |= self.diagnosis.measure(self.standing(engine, round_))
                if row:
                    text = _describe(round_, row, self.evaluator.scored_on)
                    self._write({"round": round_, **row, "seconds": self.seconds})
                self.seconds = time.perf_counter() - start
                whole = round_
                if round_ % self.config.checkpoint.every == 0 or round_ == rounds:
                    self.save(engine)
                self.progress.advance(round_, text)
        except (Exception, KeyboardInterrupt):
            if server.state.round == whole:  # else the last checkpoint is what is left
                self.save(engine)
            raise
        finally:
            self.progress.stop()
            self.trackers.finish()
        self.directory.write_result(self._result() | {"peak_memory": engine.peak_memory()})

    def _schedule(self) -> tuple[set[int], set[int]]:
        """Return the rounds after which the generic and the personal view are scored."""
        evaluate = self.config.evaluate
        generic, personal = rounds_to_evaluate(
            self.config.rounds, every=evaluate.every, personal_every=evaluate.personal_every
        )
        chosen = {evaluate.selected_round} if evaluate.selected_round else set()
        return generic | chosen, personal | chosen

    def _note(self, round_: int, metrics: MetricRecord) -> None:
        """Remember steps, faults and excluded clients of a round."""
        server = self.server
        lists: dict[str, Any] = dict(metrics)
        self.bytes_up = int(max([self.bytes_up, *lists.get("bytes", [])]))
        own = lists.get("personal_steps", lists.get("steps"))
        if own is not None:
            steps = dict(zip(lists["cid"], own, strict=True))
            stored = sorted(set(server.finite) - set(server.plan.stale))
            self.steps[stored] = [steps[cid] for cid in stored]
        self.excluded += [[round_, cid] for cid in server.excluded]
        found = {"nonfinite": server.nonfinite, "huge": server.huge}
        self.fault_log.add(round_, server.plan.by_kind() | found, passed=not server.finite)
        for words, cids in (("not finite", server.nonfinite), ("too large", server.huge)):
            for cid in cids:
                self.progress.note(f"round {round_}: client {cid}: update {words}, left out")
        if not server.finite:
            self.progress.note(f"round {round_}: no update to use, no step taken")

    def standing(self, engine: Engine, round_: int) -> Standing:
        """Return the models after a round, as they are scored."""
        personal = engine.states()
        steps = self.steps if personal else np.zeros_like(self.steps)
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

    def _has_own_backbone(self, standing: Standing) -> bool:
        """Say whether personal models have backbones of their own, from one client's."""
        strategy = self.federation.strategy
        for personal in standing.personal.values():
            model = self.server.model
            return touches_backbone(strategy.personal_weights(model, standing.broadcast, personal))
        return False

    def _evaluate(
        self, engine: Engine, round_: int, metrics: MetricRecord, *, personal: bool
    ) -> dict[str, Any]:
        """Score the models after a round and return what its line says."""
        values, evaluation = self.evaluator.evaluate(
            self.standing(engine, round_),
            engine.run_scores,
            personal=personal,
            keep_logits=round_ == self.config.rounds,
        )
        save_evaluation(evaluation_path(self.directory.path, round_), evaluation)
        row = {**values, **_train_metrics(metrics, self.server.finite)}
        if self.config.faults.is_set:
            faults = self.server.faults
            row |= self.fault_log.metrics(0 if faults is None else faults.late(round_))
        return {**row, "train/excluded": len(self.excluded)}

    def _write(self, row: dict[str, Any]) -> None:
        """Write a round's line, and tell it to the trackers."""
        self.directory.append_round(row)
        self.trackers.log(plain(row))

    def save(self, engine: Engine) -> None:
        """Write a checkpoint of the last finished round."""
        server, values = self.server.snapshot()
        states = engine.states().flush()
        save_checkpoint(
            self.directory.checkpoints,
            round=self.server.state.round,
            tensors={**server, "participants": self._participants(), "personal": states.table},
            meta={
                "server": values,
                "excluded": self.excluded,
                "faults": vars(self.fault_log),
                "norms": [] if self.server.rule is None else self.server.rule.medians,
                "bytes_up": self.bytes_up,
                "seconds": self.seconds,
                "rounds_length": self.directory.rounds_length(),
            },
            files=states.files,
        )

    def _participants(self) -> Tensors:
        """Return who was heard, who was trained, and the steps of the latter."""
        heard, trained = (np.flatnonzero(who) for who in (self.server.heard, self.server.trained))
        arrays = {"heard": heard, "trained": trained, "steps": self.steps[trained]}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def restore(self, engine: Engine) -> None:
        """Go back to the newest checkpoint; the start of the run where there is none."""
        self.directory.check_partition(self.federation.data.partition)
        checkpoint = load_checkpoint(self.directory.checkpoints)
        clean(self.directory.checkpoints)
        if checkpoint is None:
            self.directory.truncate(0)
            return
        self.take(checkpoint, engine)
        self.directory.truncate(checkpoint.meta["rounds_length"])

    def take(self, checkpoint: Checkpoint, engine: Engine) -> None:
        """Go back to a checkpoint of this run; nothing is written."""
        meta, server = checkpoint.meta, dict(checkpoint.tensors)
        states = Snapshot(checkpoint.files, server.pop("personal"))
        engine.states().restore(states, round=checkpoint.round)
        who = {name: tensor.numpy() for name, tensor in server.pop("participants").items()}
        self.server.restore(server, meta["server"])
        self.server.heard[who["heard"]] = True
        self.server.trained[who["trained"]] = True
        self.steps[who["trained"]] = who["steps"]
        self.excluded, self.seconds = meta["excluded"], meta["seconds"]
        self.bytes_up = meta["bytes_up"]
        self.fault_log = FaultLog(**meta["faults"])
        if self.server.rule is not None:
            self.server.rule.medians = meta["norms"]

    def _result(self) -> dict[str, Any]:
        config, data = self.config, self.federation.data
        state, strategy = self.server.state, self.federation.strategy
        sent = [] if strategy.pools else list(state.broadcast.values())
        once = [] if strategy.pools else list(state.fixed.values())
        return {
            "name": config.name,
            "strategy": config.strategy.name,
            "client": config.client.label,
            "seed": config.seed,
            "rounds": config.rounds,
            "status": "finished",
            "split": config.data.split,
            "reference": strategy.reference or self.federation.plugin.reference or None,
            "generic_model": self.generic,
            "streams": list(self.server.model.stream_names),
            "shots": self.evaluator.shots.to_json(),
            "scored_on": self.evaluator.scored_on.to_json(),
            "prior": config.prior.model_dump(),
            "batchnorm": config.batchnorm,
            **summarise(
                self.directory.rounds(),
                config.rounds,
                selected_round=config.evaluate.selected_round,
            ),
            "excluded": self.excluded,
            "faults": self.fault_log.result() if config.faults.is_set else None,
            "bytes_down": sum(t.nbytes for t in sent),
            "bytes_up": self.bytes_up,
            "bytes_once": sum(t.nbytes for t in once),
            "seconds": self.seconds,
            "partition_hash": data.partition.hash(),
            "config_hash": config_hash(config),
        }


def _train_metrics(metrics: MetricRecord, finite: list[int]) -> dict[str, Metric]:
    """Return ``train/...``: sums over the clients in the round's sum, divided by their examples."""
    lists: dict[str, Any] = dict(metrics)
    keep = np.isin(lists["cid"], finite)
    sums = {name: float(np.asarray(values)[keep].sum()) for name, values in lists.items()}
    examples = sums.get("examples", 0.0)
    skipped = {"cid", "finite", "weight", "bytes", "norm", "examples", "steps", "personal_steps"}
    ratios = {f"train/{n}": v / examples for n, v in sums.items() if n not in skipped and examples}
    return {**ratios, "train/clients": len(finite)}


def _describe(round_: int, row: dict[str, Any], scored_on: ScoredSet) -> str:
    """Return words for the progress: "" keeps the old ones."""
    is_scored = "generic/accuracy" in row
    return "  ".join([*scored_on.told(row), f"(round {round_})"]) if is_scored else ""
