"""A plain Flower program for the work of cnn_round.py: the peer of fedlt's engines.

Flower's own FedAvg and simulation, written as Flower's documentation writes it, with two
kindnesses: model and data are made once a process and not once a task. Evaluation is off. It lies
in a file of its own so that Ray's workers import it.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from cnn_workload import CLIENTS, IMAGES, PlainLoop, cnn_federation
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from turns import Turns

client_app = ClientApp()


@functools.cache
def plain_loop(steps: int) -> PlainLoop:
    """Return this process's model and data."""
    prepare_process()
    return PlainLoop(cnn_federation(steps, 1))


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Load the arrays, train, and send the arrays back."""
    config = message.content["config"]
    loop = plain_loop(int(config["steps"]))
    loss = loop.train(
        int(context.node_config["partition-id"]),
        int(config["server-round"]),
        message.content["arrays"].to_torch_state_dict(),
    )
    content = RecordDict(
        {
            "arrays": ArrayRecord(loop.model.state_dict()),
            "metrics": MetricRecord({"num-examples": IMAGES, "loss": loss}),
        }
    )
    return Message(content=content, reply_to=message)


def server_app(steps: int, cohort: int, rounds: int, note: Callable[[], object]) -> ServerApp:
    """Return a server app that calls ``note`` before the first and after every round."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_train=cohort / CLIENTS, fraction_evaluate=0.0)
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(plain_loop(steps).model.state_dict()),
            train_config=ConfigRecord({"steps": steps}),
            num_rounds=rounds,
            evaluate_fn=lambda round_, arrays: note() and None,
        )

    return app


def run_stock(turns: Turns, steps: int, cohort: int, *, workers: int, rounds: int) -> None:
    """Run the simulation, one round a turn."""
    from flwr.simulation import run_simulation

    logging.disable(logging.WARNING)
    options = {"num_cpus": workers, "log_to_driver": False, "logging_level": logging.ERROR}
    run_simulation(
        server_app=server_app(steps, cohort, rounds, turns.next),
        client_app=client_app,
        num_supernodes=CLIENTS,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": options,
        },
    )
