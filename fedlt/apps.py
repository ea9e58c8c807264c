"""The two Flower apps of a configuration, for Flower's own simulation and for deployments.

    server_app, client_app = make_apps(load_config("experiment.yaml"))
    run_simulation(server_app, client_app, num_supernodes=20)

In a deployment the server and every node make both apps from the same file: nodes need the data set
and draw the same partition; a node's ``partition-id`` is its client id. Runs are stored, resumed or
refused by the rules of ``fedlt run``; the file's ``engine`` is not used.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from fedlt.config import Config
from fedlt.federation import Parties, prepare_parties
from fedlt.federation.faults import Faults
from fedlt.flower.client_app import make_client_app
from fedlt.flower.server_app import make_server_app
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.runs.creation import create_run
from fedlt.runs.directory import RunDirectory
from fedlt.runs.fingerprint import fingerprint
from fedlt.worker.scorer import Host
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp


def make_apps(config: Config) -> tuple[ServerApp, ClientApp]:
    """Return the server app and the client app of one run.

    Both apps can be pickled; data are loaded where an app runs, once per process.

    Args:
        config: The run; its ``seeds`` must be None.

    Returns:
        The server app, which writes the run directory, and the client app.
    """
    text = config.model_dump_json()

    def serve(grid: Grid, context: Context) -> None:
        _serve(Config.model_validate_json(text), grid, context)

    client_app = make_client_app(
        lambda: _host(text).worker, lambda request: _host(text).score(request)
    )
    return make_server_app(serve), client_app


def _prepare(config: Config) -> Parties:
    prepare_process()
    return prepare_parties(config, resolve_strategy(config), resolve_client(config))


@functools.cache
def _host(text: str) -> Host:
    """Return this process's host (worker and scorer) for a configuration in JSON."""
    parties = _prepare(Config.model_validate_json(text))
    return Host(parties.shares, parties.observer)


def _serve(config: Config, grid: Grid, context: Context) -> None:
    from fedlt.progress import Progress
    from fedlt.simulate import Simulation

    directory = RunDirectory.of(config)
    action = directory.decide(config)
    parties = _prepare(config)
    data = parties.observer.data
    found = fingerprint(config, data)
    if action == "show":
        directory.check(found)
        return
    server = make_server_half(parties.view, Faults.of(parties.observer))
    create_run(directory, config, data.partition, found, client_names=data.client_names)
    Simulation(server, parties, directory, Progress()).main(grid, context)
