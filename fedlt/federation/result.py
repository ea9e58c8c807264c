"""The result of a finished run: the content of ``result.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlt.config import config_hash
from fedlt.evaluation import summarise
from fedlt.evaluation.patience import stopped
from fedlt.runs.fingerprint import RESULTS_VERSION

if TYPE_CHECKING:
    from fedlt.data import FederatedData
    from fedlt.evaluation.rounds import RoundRecord
    from fedlt.federation.evaluator import Evaluator
    from fedlt.federation.ledger import Ledger
    from fedlt.update import ServerState


def make_result(
    evaluator: Evaluator, ledger: Ledger, state: ServerState, rows: Sequence[RoundRecord]
) -> dict[str, Any]:
    """Return what ``result.json`` says of a run; `RunDirectory.write_result` adds the digests.

    Args:
        evaluator: The evaluator of the run; it knows data, method and generic model.
        ledger: The ledger after the last round.
        state: The server's state after the last round.
        rows: The lines of ``rounds.jsonl``.
    """
    observer = evaluator.observer
    config, strategy = observer.config, observer.strategy
    sent = [] if strategy.traits.pools else list(state.broadcast.values())
    chosen, ended = config.evaluate.selected_round, stopped(config.stop, rows)
    once = [] if strategy.traits.pools else list(state.fixed.values())
    return {
        "name": config.name,
        "strategy": config.strategy.name,
        "client": config.client.label,
        "seed": config.seed,
        "rounds": state.round,
        "stopped": ended,
        "status": "finished",
        "split": config.data.split,
        "reference": strategy.traits.reference or observer.plugin.reference or None,
        "generic_model": evaluator.generic,
        "streams": list(evaluator.model.stream_names),
        "shots": evaluator.shots.to_json(),
        **described(observer.data),
        "scored_on": evaluator.scored_on.to_json(),
        "local_test": evaluator.view.scheme,
        "prior": config.prior.model_dump(),
        "batchnorm": config.batchnorm,
        "weights": None if observer.start is None else list(observer.start.lines),
        **summarise(rows, state.round, selected_round=chosen, early=ended is not None),
        "excluded": ledger.excluded,
        "faults": ledger.fault_log.result()
        if config.faults.is_set or ledger.has_failures
        else None,
        "bytes_down": sum(tensor.nbytes for tensor in sent),
        "bytes_up": ledger.bytes_up,
        "bytes_once": sum(tensor.nbytes for tensor in once),
        "seconds": ledger.seconds,
        "partition_hash": observer.data.partition.hash(),
        "config_hash": config_hash(config),
        "results_version": RESULTS_VERSION,
    }


def described(data: FederatedData) -> dict[str, Any]:
    """Return what a model must know of the data: classes, and images with their normalisation."""
    return {
        "class_names": list(data.class_names),
        "images": {
            "shape": list(data.eval_images.shape[1:]),  # (Ch, H, W)
            "dtype": str(data.eval_images.dtype),
            "mean": list(data.mean),
            "std": list(data.std),
        },
    }
