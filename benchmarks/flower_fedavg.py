"""A plain Flower program whose clients do nothing: what fedlt's engines are measured against.

Flower's own FedAvg and a ``ClientApp`` that loads the arrays into a torch model and returns them,
as Flower's documentation writes it, with one kindness: the model is built once a process and not
once a task. It lies in a file of its own so that Ray's workers import it.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

client_app = ClientApp()


@functools.cache
def build(backbone: str, width: int) -> nn.Module:
    """Return the model that fedlt's side of the benchmark trains, too."""
    from fedlt.models import LinearHead, build_model

    model = build_model(
        backbone, image_shape=(3, 32, 32), num_classes=10, width=width, norm="batch", seed=1
    )
    model.add_head("head", LinearHead(model.num_features, 10))
    return model


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Load the arrays into the model and send them back."""
    config = message.content["config"]
    model = build(str(config["backbone"]), int(config["width"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": 20, "loss": 0.0}),
        }
    )
    return Message(content=content, reply_to=message)


def server_app(backbone: str, width: int, rounds: int, note: Callable[[], None]) -> ServerApp:
    """Return a server app that calls ``note`` before the first and after every round."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        from flwr.app import ConfigRecord

        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(build(backbone, width).state_dict()),
            train_config=ConfigRecord({"backbone": backbone, "width": width}),
            num_rounds=rounds,
            evaluate_fn=lambda round_, arrays: note(),
        )

    return app


def measure_stock(backbone: str, width: int, clients: int, rounds: int) -> list[float]:
    """Run Flower's simulation and return ``time.monotonic()`` before round 1 and after each."""
    from flwr.simulation import run_simulation

    logging.disable(logging.WARNING)
    times: list[float] = []
    run_simulation(
        server_app=server_app(backbone, width, rounds, lambda: times.append(time.monotonic())),
        client_app=client_app,
        num_supernodes=clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "log_to_driver": False, "logging_level": logging.ERROR},
        },
    )
    return times
