"""The nodes of a foreign grid: which node is which client, and whether it may take part.

Node ids of Flower are random 64-bit numbers. A node is asked once who it is; a node that restarts
has a new id and is asked again. A node of another version, configuration or partition is refused by
name, before the first round by an error and later by a note.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedlt.engines.exchange import exchange, reason_of
from fedlt.errors import FedltError, RunError
from fedlt.flower.replies import metric_lists

_PAUSE = 0.2  # seconds between two looks for nodes
_MOST_NAMED = 10  # clients that a line names
# Facts of a node in which all nodes and the server agree -> words.
SHARED_FACTS = {
    "version": "fedlt",
    "config": "the configuration",
    "partition": "the partition",
}


@dataclass(frozen=True)
class KnownNode:
    """A node that takes part."""

    node: int  # id on the grid
    facts: Mapping[str, object]


class Roster:
    """Nodes by client.

    Args:
        grid: The grid.
        num_clients: K; clients are 0 to K - 1.
        expected: Facts that a node must agree with; a fact that is not here is not compared.
        timeout: Seconds in which a node says who it is.
    """

    def __init__(
        self, grid: Grid, num_clients: int, expected: Mapping[str, object], *, timeout: float
    ) -> None:
        self._grid, self._clients, self._timeout = grid, num_clients, timeout
        self._expected = dict(expected)
        self._asked: set[int] = set()
        self.members: dict[int, KnownNode] = {}  # by cid

    def find(self, wait: float) -> None:
        """Wait until a node is there for every client.

        Raises:
            FedltError: If a node cannot take part, or two nodes are one client.
            RunError: If clients have no node in time.
        """
        deadline = time.monotonic() + wait
        while True:
            for line in self._ask_new():
                raise FedltError(line)
            missing = [cid for cid in range(self._clients) if cid not in self.members]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise RunError(
                    f"after {wait:g} s no node is there for clients {_some(missing)}; "
                    "deployment.wait is the time"
                )
            time.sleep(_PAUSE)

    def refresh(self) -> list[str]:
        """Ask nodes that are new, and return a line for every change."""
        before = {cid: member.node for cid, member in self.members.items()}
        lines = self._ask_new(is_running=True)
        moved = [cid for cid, node in before.items() if self.members[cid].node != node]
        return lines + [f"client {c}: now at node {self.members[c].node}" for c in moved]

    def expect(self, facts: Mapping[str, object]) -> None:
        """Add facts that nodes must agree with from now on."""
        self._expected |= facts

    def node_of(self, cid: int) -> int:
        """Return the id of client ``cid``'s node on the grid."""
        return self.members[cid].node

    def _ask_new(self, *, is_running: bool = False) -> list[str]:
        """Ask the nodes that were not asked yet; return a line for each that cannot take part.

        While a run goes on, a new node takes the place of an old one that says the same client:
        Flower lists a node that has died for about a minute.
        """
        new = sorted(set(self._grid.get_node_ids()) - self._asked)
        if not new:
            return []
        messages = [Message(RecordDict(), node, MessageType.QUERY) for node in new]
        replies = exchange(self._grid, messages, timeout=self._timeout)
        lines: list[str] = []
        claims: dict[int, list[int]] = {}
        for node, reply in zip(new, replies, strict=True):
            reason = reason_of(reply)
            if reply is None or (reason and reply.has_error()):
                continue  # it may have died since; while it is there, it is asked again
            self._asked.add(node)
            if reason:
                lines.append(f"node {node} {reason}")
                continue
            (cid,) = metric_lists(reply)["cid"]
            facts = dict(cast(ConfigRecord, reply.content["facts"]))
            wrong = self._differences(int(cid), facts)
            if wrong:
                lines.append(f"node {node}: {wrong}")
                continue
            known = int(cid) in self.members and not is_running
            before = [self.members[int(cid)].node] if known else []
            claims.setdefault(int(cid), before).append(node)
            self.members[int(cid)] = KnownNode(node, facts)
        lines += [
            f"nodes {_and(nodes)}: {'both' if len(nodes) == 2 else 'all'} say partition-id={cid}"
            for cid, nodes in claims.items()
            if len(nodes) > 1
        ]
        return lines

    def _differences(self, cid: int, facts: Mapping[str, object]) -> str:
        if not 0 <= cid < self._clients:
            return f"partition-id={cid}, but the run has clients 0 to {self._clients - 1}"
        for name, words in SHARED_FACTS.items():
            wanted, found = self._expected.get(name), facts.get(name)
            if wanted is None or found is None or found == wanted:
                continue
            values = f": {found}, the server has {wanted}" if name == "version" else ""
            return f"another {words.removeprefix('the ')}{values}"
        return ""


def _and(nodes: Sequence[int]) -> str:
    return f"{', '.join(map(str, nodes[:-1]))} and {nodes[-1]}"


def _some(cids: Collection[int]) -> str:
    listed = sorted(cids)
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return f"{listed[:_MOST_NAMED]}{more}"
