"""Cost of a run, estimated from a few steps of the real task: time, memory, clients at once.

The task is one client's whole local update on a few of its batches, after a warm-up, so it includes
augmentation, every phase of the method and the optimiser. Scoring is measured too: the generic
view, and one client's personal model with the tuning before it. Estimates are good to a factor of
two: enough to choose an engine and to tell a minute from an hour.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedlt.data.batches import batch_slices
from fedlt.errors import FedltError, one_line
from fedlt.evaluation import rounds_to_evaluate
from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.federation.evaluator import touches_backbone

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Client
    from fedlt.federation import ClientShares, Terms
    from fedlt.flower.adapter import ServerHalf
    from fedlt.strategy import ServerState
    from fedlt.worker.scorer import Host

BATCHES = 3  # of the probed client
PATIENCE = 0.3  # seconds of repeated measurement
SEVERAL = 4  # clients that are scored together, to find the cost of one more client


@dataclass(frozen=True)
class Probe:
    """Measured seconds and bytes, and the sizes that scale them to a whole run."""

    batch_seconds: float  # of local work, for one batch of one client
    task_seconds: float  # one average client's local work of a round
    longest_seconds: float  # the largest client's
    evaluation_seconds: float  # the generic view, once
    evaluations: int  # of the rounds that are left
    personal_seconds: float  # the personal views of all rounds that are left, tuning included
    rounds: int  # that are left
    cohort: int  # clients a round
    parameters: int  # entries that travel
    memory: int  # bytes of this process, with the data and one model in it
    data: int  # bytes of the images
    personal: int = 0  # bytes of one client's personal state


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run on one engine."""

    seconds: float
    memory: int  # bytes, of all processes
    clients: int  # trained at once


def method_name(terms: Terms) -> str:
    """Return the names of strategy and plugin in the configuration, without file names."""
    chosen = (terms.config.strategy.name, terms.config.client.label)
    return "{} with {}".format(*(name.rpartition(":")[2] for name in chosen))


def take_probe(server: ServerHalf, host: Host) -> Probe:
    """Return the measured cost of a median client's steps and of one block of the test set.

    Args:
        server: The server, in the state from which a round would begin.
        host: The host whose scratch model is used.

    Raises:
        FedltError: If the local update or the scoring fails.
    """
    try:
        return _measure(server, host)
    except Exception as error:
        what = f"{method_name(server.view)}: a trial of local_update fails"
        raise FedltError(f"{what}: {one_line(error)}") from error


def _measure(server: ServerHalf, host: Host) -> Probe:
    state, worker, shares = server.state, host.worker, host.worker.shares
    config, sizes = shares.config, shares.sizes
    cid = int(np.argsort(sizes, kind="stable")[len(sizes) // 2])
    indices = worker.client_data(cid).indices[: BATCHES * config.local.batch_size]

    def few() -> Client:
        client = worker.first_client(state, cid, server.prior_counts([cid]))
        client.data = replace(client.data, indices=indices)
        client.local = config.local.of_one_epoch()
        return client

    def batches(images: int) -> int:
        return len(batch_slices(images, config.local.batch_size))

    own: dict[str, Tensor] = {}

    def train() -> None:
        own.update({n: t.detach().clone() for n, t in worker.train(few()).personal.items()})

    per_batch = measure_seconds(train) / max(batches(len(indices)), 1)
    work = np.array([config.local.task_steps(batches(int(size))) for size in sizes])
    if shares.strategy.traits.pools:  # one task stands for the whole cohort
        work = shares.cohort_size * work.mean(keepdims=True)
    generic, personal = rounds_to_evaluate(
        config.rounds, every=config.evaluate.every, personal_every=config.evaluate.personal_every
    )
    return Probe(
        batch_seconds=per_batch,
        task_seconds=per_batch * float(work.mean()),
        longest_seconds=per_batch * float(work.max()),
        evaluation_seconds=_evaluation_seconds(host, state),
        personal_seconds=personal_seconds(
            server, host, (cid, own), sorted(r for r in personal if r > state.round)
        ),
        evaluations=sum(round_ > state.round for round_ in generic),
        rounds=config.rounds - state.round,
        cohort=1 if shares.strategy.traits.pools else shares.cohort_size,
        parameters=sum(tensor.numel() for tensor in state.broadcast.values()),
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        data=shares.images.nbytes + host.scorer.images.nbytes,
        personal=sum(tensor.nbytes for tensor in own.values()),
    )


def measure_seconds(act: Callable[[], object]) -> float:
    """Return the median seconds of ``act()``, after a first call that is not counted."""
    act()
    times: list[float] = []
    while not times or (sum(times) < PATIENCE and len(times) < 10):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _evaluation_seconds(host: Host, state: ServerState) -> float:
    """Return the seconds to score the generic heads on the whole test set; 0 without heads."""
    if not host.worker.shares.strategy.generic(host.worker.model, state.broadcast):
        return 0.0
    request = _request(host, state)
    return measure_seconds(lambda: host.score(request)) * _blocks(host)


def _blocks(host: Host) -> float:
    """Return the size of the test set in blocks; a block is scored at once."""
    images = len(host.scorer.images)
    return images / min(images, host.worker.shares.config.evaluate.batch_size)


def _request(host: Host, state: ServerState, *clients: ClientRequest) -> ScoreRequest:
    """Return a scoring request for one block of the test set: generic model, or some clients."""
    return ScoreRequest(
        round=state.round,
        broadcast=state.broadcast,
        fixed=state.fixed,
        private_mean={},
        start=0,
        stop=min(len(host.scorer.images), host.worker.shares.config.evaluate.batch_size),
        generic=not clients,
        keep_logits=False,
        clients=clients,
    )


def personal_seconds(
    server: ServerHalf, host: Host, client: tuple[int, Mapping[str, Tensor]], rounds: list[int]
) -> float:
    """Return the seconds to score the personal views of some rounds in one process.

    In each view a client's model is tuned (the strategy's ``adapt``, ``personal.refresh``) and
    scored: by a pass of its own over the test set, or from the generic model's features.

    Args:
        server: The server, with the state for the scoring.
        host: The host whose scratch model is used.
        client: A client of median size, and its personal state after a round.
        rounds: The rounds after which the personal view is scored.
    """
    worker, shares, state = host.worker, host.worker.shares, server.state
    strategy, tunes = shares.strategy, shares.tunes
    cid, own = client
    has_generic = bool(strategy.generic(worker.model, state.broadcast))
    weights = strategy.personal_weights(worker.model, state.broadcast, own)
    alone = tunes or touches_backbone(weights)
    asked = ClientRequest(cid, None if strategy.traits.pools else own, base=has_generic)
    scoring, tuning = _request(host, state, asked), 0.0
    if tunes or not has_generic:
        tuning = measure_seconds(lambda: worker.finished(scoring)) * _relative_work(shares, cid)
        scoring = worker.finished(scoring)
    score = measure_seconds(lambda: host.scorer.score(scoring))
    if not alone:  # the backbone's pass is shared by all clients
        several = replace(scoring, clients=scoring.clients * SEVERAL)
        together = measure_seconds(lambda: host.scorer.score(several))
        score = max(0.0, together - score) / (SEVERAL - 1)
    population, cohort = shares.num_clients, shares.cohort_size
    evaluated = shares.config.evaluate.clients
    scored = population if evaluated == "all" else min(evaluated, population)
    models = float(scored * len(rounds))
    if alone and has_generic and not tunes:  # only participants have a personal model
        models = sum(scored * (1 - (1 - cohort / population) ** round_) for round_ in rounds)
    return models * (tuning + score * _blocks(host))


def _relative_work(shares: ClientShares, cid: int) -> float:
    """Return the number of batches of an average client relative to client ``cid``."""
    batches = -(-shares.sizes // shares.config.local.batch_size)
    return float(batches.mean()) / max(1, int(batches[cid]))
