"""The server of a run on a foreign grid: parties, nodes, and the rounds."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fedlt.config import config_hash
from fedlt.engines.foreign import ForeignEngine
from fedlt.engines.preparing import PreparedRun, decide_action
from fedlt.engines.rehearsal import rehearse
from fedlt.engines.roster import Roster
from fedlt.federation import prepare_parties
from fedlt.federation.faults import Faults
from fedlt.federation.nodes import check_nodes, server_parties
from fedlt.flower.server_half import make_server_half
from fedlt.machine.installed import installed_version
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.progress import Progress, round_time
from fedlt.runs.claims import claimed
from fedlt.runs.directory import RunDirectory
from fedlt.runs.endings import explained
from fedlt.runs.fingerprint import fingerprint
from fedlt.simulate import conduct
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid

    from fedlt.config import Config

NO_AVERAGE = (
    "no generic model: it would be an average of personal parts, which stay at the nodes; "
    "deployment.average_personal=true lets the server ask for them"
)
_LOG = logging.getLogger("flwr")


def serve(config: Config, grid: Grid, context: Context) -> None:
    """Do a run on a foreign grid, or show that it is done already."""
    prepare_process()
    is_resumed = bool(context.run_config.get("resume", False))
    method = resolve_strategy(config), resolve_client(config)
    directory = RunDirectory.of(config)
    action = decide_action(config, resume=is_resumed, overwrite=False)
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
