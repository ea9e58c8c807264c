"""The server of a plain Flower app: Flower's own FedAvg, which notes when each round ends."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from network import build

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write the times at which rounds ended, the start first."""
    times: list[float] = []
    nodes = int(str(context.run_config["nodes"]))
    FedAvg(min_available_nodes=nodes, min_train_nodes=nodes, min_evaluate_nodes=nodes).start(
        grid=grid,
        initial_arrays=ArrayRecord(build().state_dict()),
        num_rounds=int(str(context.run_config["rounds"])),
        evaluate_fn=lambda round_, arrays: times.append(time.monotonic()),
    )
    Path(str(context.run_config["output"])).write_text(json.dumps(times))
