"""Open a finished or stopped run, change its head, and score it before and after.

The run directory is only read: :func:`outcome_path` returns the file for the outcome.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from fedlt.config import FaultsConfig, config_hash
from fedlt.engines import engine_class
from fedlt.engines.rehearsal import rehearse
from fedlt.errors import FedltError
from fedlt.federation import Parties, prepare_parties
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.progress import Progress
from fedlt.realigning.changes import ClosedForm, Learner, Realignment, spelt
from fedlt.realigning.drive import drive
from fedlt.realigning.linear_head import LinearNames, find_head, find_local_head
from fedlt.realigning.realigned import SENT, TRAINED, PooledRealigned, Realigned, head_of
from fedlt.rng import torch_generator
from fedlt.runs.checkpoints import Checkpoint, load_checkpoint, newest_round, state_folder
from fedlt.runs.directory import RunDirectory
from fedlt.runs.fingerprint import fingerprint
from fedlt.simulate import Simulation
from fedlt.strategy import ServerState, Tensors, prefixed, under
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from fedlt.config import Config
    from fedlt.engines.engine import Engine
    from fedlt.evaluation import Metric
    from fedlt.federation.evaluator import Standing
    from fedlt.models.linear_probe import Head

DataPolicy = Literal["none", "pooled", "federated"]


@dataclass(frozen=True)
class Plan:
    """Plan of a change: a method with its constants, and the data that the method learns from."""

    method: Realignment
    data: DataPolicy = "none"
    rounds: int = 0  # added rounds, with ``federated``

    def label(self) -> str:
        """Return the plan in words, for a table and a file name: method, data, constants."""
        policy = "" if self.data == "none" else f"-{self.data}"
        constants = dict(self.method.constants())
        if self.data == "federated" and not getattr(self.method, "once", False):
            constants = {"rounds": self.rounds, **constants}
        values = ",".join(f"{name}={spelt(value)}" for name, value in constants.items())
        return f"{self.method.name}{policy}-{values}"


@dataclass(frozen=True)
class _Opened:
    """Opened run, ready to be scored again."""

    directory: RunDirectory
    checkpoint: Checkpoint
    simulation: Simulation
    parties: Parties  # with the strategy that scores changed heads
    head: LinearNames
    has_local: bool

    @property
    def groups(self) -> tuple[Tensors, Tensors]:
        """Broadcast and fixed part of the checkpoint."""
        return self.checkpoint.tensors["broadcast"], self.checkpoint.tensors["fixed"]

    @property
    def trained(self) -> Head:
        """Head as trained by the run."""
        return head_of(self.head, self.groups[self.head.is_fixed])


@dataclass(frozen=True)
class _Learnt:
    """Changed head, with the cost of learning."""

    head: Head
    seconds: float
    rounds: int = 0
    clients: int = 0  # that took part
    bytes_down: int = 0  # to all clients, over all rounds
    bytes_up: int = 0


def outcome_path(directory: RunDirectory, plan: Plan) -> Path:
    """Return the file of an outcome: beside the run, named by method and constants."""
    return directory.path / "realign" / f"{plan.label()}.json"


def realign(
    directory: RunDirectory, plans: Sequence[Plan], *, engine: str = "serial"
) -> list[dict[str, Any]]:
    """Return the outcomes of plans, carried out on a run's newest checkpoint.

    Args:
        directory: The run directory, which is only read.
        plans: The plans, all with the same method, data policy and rounds.
        engine: The engine for clients' tasks and scoring.

    Returns:
        One dictionary per plan: method, data, cost, and both views ``before`` and ``after``.

    Raises:
        FedltError: If the run cannot be read, or has no head for these plans.
    """
    prepare_process()
    first = plans[0]
    with directory.lock():
        run = _open(directory, first, engine)
        learnt = [_change(run, plan) for plan in plans]
        with engine_class(engine)(run.parties) as grid:
            memory = run.parties.view.config.engine.personal_memory
            grid.states().spill_to(state_folder(directory.checkpoints), memory)
            run.simulation.take(run.checkpoint, grid)
            standing = run.simulation.standing(grid, run.checkpoint.round)
            before = _score(run, grid, standing)
            return [
                _describe(run, plan, changed)
                | {"before": before, "after": _score(run, grid, _with(run, standing, changed.head))}
                for plan, changed in zip(plans, learnt, strict=True)
            ]


def _open(directory: RunDirectory, plan: Plan, engine: str) -> _Opened:
    """Return the run of a directory with its models loaded and its linear head found."""
    directory.recorded()  # raises unless all files are present and of one run
    config = directory.config()
    checkpoint = _newest(directory, config)
    settings = config.engine.model_copy(update={"name": engine, "compile": False})
    config = config.model_copy(update={"engine": settings})
    strategy, plugin = resolve_strategy(config), resolve_client(config)
    parties = prepare_parties(config, strategy, plugin)
    data = parties.observer.data
    directory.check(fingerprint(directory.config(), data), purpose="realigned")
    directory.check_partition(data.partition)
    server = make_server_half(parties.view)
    rehearsal = rehearse(parties, server)
    simulation = Simulation(server, parties, directory, Progress(), rehearsal.generic)
    broadcast, fixed = checkpoint.tensors["broadcast"], checkpoint.tensors["fixed"]
    state = replace(server.state, broadcast=broadcast, fixed=fixed)
    client = rehearsal.host.worker.first_client(state, 0, server.prior_counts([0]))
    with _named(config):
        head = find_head(strategy, client, fixed, name=config.strategy.name)
        _check(plan, head, client.model.names("personal"))
        if config.privacy is not None and plan.method.reads_clients:
            raise FedltError(
                f"realign: {plan.method.name} reads images or class counts of clients, of which "
                "the run's privacy knows nothing; gla_fr and tau_norm read the head alone"
            )
        local = find_local_head(strategy, client) if plan.method.reads_local else None
    changed = parties.changed(strategy=Realigned(strategy, head, local))
    return _Opened(directory, checkpoint, simulation, changed, head, local is not None)


def _newest(directory: RunDirectory, config: Config) -> Checkpoint:
    """Return a run's newest checkpoint, never an older one; a finished run's last checkpoint."""
    finished = directory.state == "finished"
    last = directory.result()["rounds"] if finished else newest_round(directory.checkpoints)

    def check(one: Checkpoint) -> str:
        return "" if one.round == last else f"realign reads that of round {last}"

    checkpoint = load_checkpoint(directory.checkpoints, run=directory.run, check=check)
    if checkpoint is None:
        raise FedltError(f"{directory.path} has no checkpoint to realign")
    return checkpoint


@contextmanager
def _named(config: Config) -> Iterator[None]:
    """Put the run's name in front of errors of the block."""
    try:
        yield
    except FedltError as error:
        raise FedltError(f"{config.name}: {error}") from error


def _check(plan: Plan, head: LinearNames, personal: Sequence[str]) -> None:
    """Raise if the head or the backbone lacks a requirement of the method."""
    name = plan.method.name
    if head.bias is None and plan.method.moves_bias:
        raise FedltError(f"realign: {name} needs a head with a bias; {head.weight!r} has none")
    own = next((n for n in personal if n.startswith("backbone.")), None)
    if own is not None and plan.data != "none":
        raise FedltError(
            f"realign: {name} learns on features, and every client has its own: {own!r} is personal"
        )


def _learning(run: _Opened, learner: Learner, *, pooled: bool) -> Parties:
    """Return the parties of the added rounds: no faults, and all clients if there is one round.

    The clients' answers hold no BatchNorm statistics, so no statistics are pooled.
    """
    config, scored = run.parties.view.config, run.parties.view.strategy
    assert isinstance(scored, Realigned)
    cls = PooledRealigned if pooled else Realigned
    update = {
        "faults": FaultsConfig(),
        "batchnorm": "average",
        "clients_per_round": None if learner.once else config.clients_per_round,
    }
    return run.parties.changed(
        config=config.model_copy(update=update),
        strategy=cls(scored.base, scored.head, learner=learner),
    )


def _change(run: _Opened, plan: Plan) -> _Learnt:
    """Return the new head."""
    start = time.perf_counter()
    if isinstance(plan.method, ClosedForm):
        head = plan.method.realign(run.trained, torch.from_numpy(_prior(run)[0]))
        return _Learnt(head, time.perf_counter() - start)
    assert isinstance(plan.method, Learner)
    learner, trained, round_ = plan.method, run.trained, run.checkpoint.round
    parties = _learning(run, learner, pooled=plan.data == "pooled")
    broadcast, fixed = run.groups
    sent = learner.start(trained, torch_generator(parties.view.seed, "realign start", round_))
    state = ServerState(round_, {**broadcast, **prefixed(SENT, sent)}, fixed=fixed)
    rounds = plan.rounds if plan.data == "federated" and not learner.once else 1
    with engine_class(parties.view.config.engine.name)(parties) as engine:
        state, cohorts = drive(parties.view, engine, state, rounds)
    generator = torch_generator(parties.view.seed, "realign end", round_)
    mean = {name: tensor.cpu() for name, tensor in under(SENT, state.broadcast).items()}
    head = learner.finish(trained, mean, state.private, generator)
    seconds = time.perf_counter() - start
    if plan.data == "pooled":
        return _Learnt(head, seconds)
    tasks, clients = sum(map(len, cohorts)), len({cid for cohort in cohorts for cid in cohort})
    model, size = _bytes(broadcast) + _bytes(fixed), _bytes(sent)
    down, up = clients * model + tasks * size, tasks * (size + _bytes(state.private))
    return _Learnt(head, seconds, rounds, clients, down, up)


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _prior(run: _Opened) -> tuple[Any, str]:
    """Return the class counts of a prior, and the source of the counts by the run's policy.

    Where the server knows no counts (``prior.source: own``), the global training counts are used.
    """
    server, config = run.simulation.server, run.parties.view.config
    heard = run.checkpoint.tensors["participants"]["heard"].numpy()
    server.heard[heard] = True
    counts = server.prior_counts([])
    if counts is None:
        return run.parties.observer.data.class_counts.copy(), "oracle"
    return counts.copy(), config.prior.source


def _with(run: _Opened, standing: Standing, head: Head) -> Standing:
    """Return the run's models with another generic head."""
    names = run.head
    new = {names.weight: head["weight"]}
    if names.bias is not None:
        new[names.bias] = head["bias"]
    broadcast = {**standing.broadcast, TRAINED: run.trained["weight"]}
    if names.is_fixed:
        return replace(standing, broadcast=broadcast, fixed={**standing.fixed, **new})
    return replace(standing, broadcast={**broadcast, **new})


def _score(run: _Opened, engine: Engine, standing: Standing) -> dict[str, Metric]:
    values, _ = run.simulation.evaluator.evaluate(
        standing, engine.run_scores, personal=True, keep_logits=False
    )
    return values


def _describe(run: _Opened, plan: Plan, learnt: _Learnt) -> dict[str, Any]:
    config = run.simulation.config
    adjusts = plan.method.moves_bias and isinstance(plan.method, ClosedForm)
    return {
        "method": plan.method.name,
        "constants": plan.method.constants(),
        "data": plan.data,
        "oracle": plan.data == "pooled",
        "prior": _prior(run)[1] if adjusts else None,
        "split": config.data.split,
        "scored_on": run.simulation.evaluator.scored_on.to_json(),
        "head": run.head.weight,
        "local_head": run.has_local,
        "name": config.name,
        "strategy": config.strategy.name,
        "client": config.client.label,
        "seed": config.seed,
        "checkpoint_round": run.checkpoint.round,
        "rounds": learnt.rounds,
        "clients": learnt.clients,
        "bytes_down": None if plan.data == "pooled" else learnt.bytes_down,
        "bytes_up": None if plan.data == "pooled" else learnt.bytes_up,
        "seconds": learnt.seconds,
        "config_hash": config_hash(config),
    }
