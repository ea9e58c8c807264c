"""A node of a foreign grid: its client's share, from the data set or from images of its own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from fedlt.config import Config, config_hash
from fedlt.errors import FedltError
from fedlt.federation import prepare_parties
from fedlt.federation.nodes import node_facts, node_parties
from fedlt.flower.node_app import Node, check_partition_id
from fedlt.machine.installed import installed_version
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.worker.scorer import Host
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from flwr.app import Context

    from fedlt.strategy import Tensors


def open_node(config: Config, context: Context) -> Node:
    """Return the node of a context; what it holds is loaded once per process.

    Raises:
        FedltError: If the node's configuration is wrong, or its data cannot be had.
    """
    cid = check_partition_id(context)
    folder, place = (context.node_config.get(name) for name in ("state-dir", "data"))
    text = config.model_dump_json()
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
        has_secrets=is_alone,
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
