"""The two Flower apps of an experiment, for Flower's own simulation and for deployments.

In Python, the apps of a configuration:

    server_app, client_app = make_apps(load_config("experiment.yaml"))
    run_simulation(server_app, client_app, num_supernodes=20)

In an app folder that ``fedlt app`` writes, the apps of its experiment, which Flower loads by
name; its run config says what to replace:

    app = make_server_app(__file__)      app = make_client_app(__file__)

    experiment   the file, beside the modules        set      overrides, "rounds=3 local.lr=0.1"
    output       folder of run directories           resume   true: go on with an unfinished run

Which client a node is, its ``partition-id`` says. With ``deployment.data: shared``, nodes need the
data set and draw the same partition as the server. Runs are stored, resumed or refused by the rules
of ``fedlt run``; the file's ``engine`` is not used.
"""

from __future__ import annotations

import functools
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from fedlt.config import Config, load_config
from fedlt.errors import FedltError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Context
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

    from fedlt.flower.node_app import Node

    FindConfig = Callable[[Context], Config]

__all__ = ["make_apps", "make_client_app", "make_server_app"]

EXPERIMENT = "experiment.yaml"  # in an app folder


def make_apps(config: Config) -> tuple[ServerApp, ClientApp]:
    """Return the server app and the client app of one run.

    Both apps can be pickled; data are loaded where an app runs, once per process.

    Args:
        config: The run; its ``seeds`` must be None.

    Returns:
        The server app, which writes the run directory, and the client app.
    """
    find = functools.partial(_given, config.model_dump_json())
    return _server_app(find), _client_app(find, config)


def make_server_app(module: str) -> ServerApp:
    """Return the server app of an app folder.

    Args:
        module: ``__file__`` of a module in the folder.
    """
    return _server_app(functools.partial(_of_folder, module))


def make_client_app(module: str) -> ClientApp:
    """Return the client app of an app folder.

    Args:
        module: ``__file__`` of a module in the folder.
    """
    find = functools.partial(_of_folder, module)
    config = load_config(Path(module).parent / EXPERIMENT)
    return _client_app(find, config)


def _given(text: str, context: Context) -> Config:
    return Config.model_validate_json(text)


def _of_folder(module: str, context: Context) -> Config:
    """Return the configuration of an app folder under its run config.

    Raises:
        FedltError: If the experiment or an override is wrong, or means several runs.
    """
    given = context.run_config
    overrides = shlex.split(str(given.get("set", "")))
    folder = Path(module).parent
    config = load_config(folder / str(given.get("experiment", EXPERIMENT)), overrides)
    if config.seeds is not None:
        raise FedltError("one run is one seed: give seed, not seeds")
    if config.flower.mods != load_config(folder / EXPERIMENT).flower.mods:
        raise FedltError(
            "flower.mods: the mods of an app are those of its folder; fedlt app writes another one"
        )
    output = str(given.get("output", "")) or config.output
    return config.model_copy(update={"output": str(Path(output).expanduser())})


def _server_app(find: FindConfig) -> ServerApp:
    from fedlt.flower.server_app import make_server_app as around

    def main(grid: Grid, context: Context) -> None:
        from fedlt.apps.serving import serve

        try:
            serve(find(context), grid, context)
        except (FedltError, RunError) as error:
            logging.getLogger("flwr").error("error: %s", error)
            raise

    return around(main)


def _client_app(find: FindConfig, config: Config) -> ClientApp:
    from fedlt.flower.mods import load_mods
    from fedlt.flower.node_app import make_node_app

    def open_node(context: Context) -> Node:
        from fedlt.apps.node import open_node

        return open_node(find(context), context)

    return make_node_app(open_node, load_mods(config))
