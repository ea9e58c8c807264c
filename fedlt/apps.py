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
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedlt.config import Config, config_hash, load_config
from fedlt.engines.foreign import ForeignEngine
from fedlt.engines.preparing import PreparedRun
from fedlt.engines.rehearsal import rehearse
from fedlt.engines.roster import Roster
from fedlt.errors import FedltError, RunError
from fedlt.federation import prepare_parties
from fedlt.federation.faults import Faults
from fedlt.federation.nodes import check_nodes, node_facts, node_parties, server_parties
from fedlt.flower.mods import load_mods
from fedlt.flower.node_app import Node, check_partition_id, make_node_app
from fedlt.flower.server_app import make_server_app as _make_server_app
from fedlt.flower.server_half import make_server_half
from fedlt.machine.installed import installed_version
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.progress import Progress, round_time
from fedlt.runs.claims import claimed
from fedlt.runs.directory import RunDirectory
from fedlt.runs.endings import explained
from fedlt.runs.fingerprint import fingerprint
from fedlt.simulate import conduct
from fedlt.worker.scorer import Host
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Context
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

    from fedlt.strategy import Tensors

    FindConfig = Callable[[Context], Config]

EXPERIMENT = "experiment.yaml"  # in an app folder
NO_AVERAGE = (
    "no generic model: it would be an average of personal parts, which stay at the nodes; "
    "deployment.average_personal=true lets the server ask for them"
)
_LOG = logging.getLogger("flwr")


def make_apps(config: Config) -> tuple[ServerApp, ClientApp]:
    """Return the server app and the client app of one run.

    Both apps can be pickled; data are loaded where an app runs, once per process.

    Args:
        config: The run; its ``seeds`` must be None.

    Returns:
        The server app, which writes the run directory, and the client app.
    """
    find = functools.partial(_given, config.model_dump_json())
    mods = load_mods(config)
    return _server_app(find), make_node_app(functools.partial(_open_node, find), mods)


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
    return make_node_app(functools.partial(_open_node, find), load_mods(config))


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
    output = str(given.get("output", "")) or config.output
    return config.model_copy(update={"output": str(Path(output).expanduser())})


def _server_app(find: FindConfig) -> ServerApp:
    def serve(grid: Grid, context: Context) -> None:
        try:
            _serve(find(context), grid, context)
        except (FedltError, RunError) as error:
            _LOG.error("error: %s", error)
            raise

    return _make_server_app(serve)


def _serve(config: Config, grid: Grid, context: Context) -> None:
    """Do a run on a foreign grid, or show that it is done already."""
    prepare_process()
    is_resumed = bool(context.run_config.get("resume", False))
    method = resolve_strategy(config), resolve_client(config)
    directory = RunDirectory.of(config)
    action = directory.decide(config, resume=is_resumed)
    rules = config.deployment
    expected = {"version": installed_version(), "config": config_hash(config)}
    with claimed(directory.path):
        if rules.data == "nodes":
            check_nodes(config, *method)
            roster = Roster(grid, config.partition.num_clients, expected, timeout=rules.timeout)
            roster.find(rules.wait)
            told = {cid: member.facts for cid, member in sorted(roster.members.items())}
            parties = server_parties(config, *method, told)
            found = fingerprint(config, parties.observer.data)
            digests = {f"images of client {cid}": str(facts["data"]) for cid, facts in told.items()}
            found = replace(found, data={**found.data, **digests})
        else:
            parties = prepare_parties(config, *method)
            found = fingerprint(config, parties.observer.data)
            expected["partition"] = parties.observer.data.partition.hash()
            roster = Roster(grid, parties.view.num_clients, expected, timeout=rules.timeout)
        if action == "show":
            directory.check(found)
            return
        if action == "resume":
            directory.check(found, purpose="resumed")
        roster.find(rules.wait)
        faults = None if rules.data == "nodes" else Faults.of(parties.observer)
        server = make_server_half(parties.view, faults)
        rehearsal = rehearse(parties, server)
        generic = rehearsal.generic
        if generic == "average" and not rules.average_personal:
            generic = "none"
        prepared = PreparedRun.tried(parties, server, found, rehearsal, "grid", generic)
        if generic != rehearsal.generic:
            prepared.notes.append(NO_AVERAGE)
        engine = ForeignEngine(grid, parties, roster, found.run)
        with engine, explained(directory):
            conduct(prepared, engine, context, directory, action, _LogProgress())
    _LOG.info("%s", directory.path)


def _open_node(find: FindConfig, context: Context) -> Node:
    """Return the node of a context; what it holds is loaded once per process.

    Raises:
        FedltError: If the node's configuration is wrong, or its data cannot be had.
    """
    cid = check_partition_id(context)
    folder, place = (context.node_config.get(name) for name in ("state-dir", "data"))
    text = find(context).model_dump_json()
    node = _node(text, cid, None if place is None else str(place))
    node.state_folder = None if folder is None else Path(str(folder)).expanduser()
    return node


@functools.cache
def _node(text: str, cid: int, place: str | None) -> Node:
    config = Config.model_validate_json(text)
    facts: dict[str, str | int | list[int]]
    facts = {"version": installed_version(), "config": config_hash(config)}
    is_alone = config.deployment.data == "nodes"
    if is_alone:
        if place is None:
            raise FedltError("has no data: flower-supernode --node-config 'data=\"/path\"'")
        prepare_process()
        method = resolve_strategy(config), resolve_client(config)
        parties = node_parties(config, *method, cid, place)
        host, more = Host(parties.shares, parties.observer), node_facts(parties, cid)
    else:
        host, partition = _host(text)
        more = {"partition": partition}
    return Node(
        cid=cid,
        worker=host.worker,
        score=host.score,
        make_fixed=functools.partial(_fixed, host),
        facts={**facts, **more},
        test_images=len(host.scorer.images),
        per_class=not is_alone or config.deployment.answers == "per_class",
    )


@functools.cache
def _host(text: str) -> tuple[Host, str]:
    """Return this process's worker and scorer for a configuration in JSON, and the partition."""
    prepare_process()
    config = Config.model_validate_json(text)
    parties = prepare_parties(config, resolve_strategy(config), resolve_client(config))
    return Host(parties.shares, parties.observer), parties.observer.data.partition.hash()


def _fixed(host: Host) -> Tensors:
    """Return the fixed part of the initial model, as the server makes it."""
    shares = host.worker.shares
    return dict(shares.strategy.init(shares.build_model()).fixed)


class _LogProgress(Progress):
    """Progress in Flower's log, a line a round: ``flwr log`` shows it."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._began = time.monotonic()

    def start(self, total_rounds: int, done: int = 0) -> None:
        """Note the start."""
        self._total, self._done, self._began = total_rounds, done, time.monotonic()
        if done:
            _LOG.info("going on after round %d of %d", done, total_rounds)

    def advance(self, round: int, text: str = "") -> None:
        """Log a line."""
        seconds = (time.monotonic() - self._began) / max(round - self._done, 1)
        left = round_time(seconds * (self._total - round))
        _LOG.info("round %d of %d, %s left%s", round, self._total, left, text and f", {text}")

    def note(self, line: str) -> None:
        """Log a line of news."""
        _LOG.info("%s", line)
