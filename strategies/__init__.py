"""Federated strategies: one method per file, client half and server half. The only registry.

A class is imported when it is first used: ``STRATEGIES["fedavg"]``, or ``from strategies import
FedAvg``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.config.loading import Table

if TYPE_CHECKING:
    from fedlt.strategy import Strategy

STRATEGIES: Table[type[Strategy]] = Table(
    {
        "apfl": "strategies.apfl:APFL",
        "balancefl": "strategies.balancefl:BalanceFL",
        "ccvr": "strategies.ccvr:CCVR",
        "centralised": "strategies.centralised:Centralised",
        "creff": "strategies.creff:CReFF",
        "ditto": "strategies.ditto:Ditto",
        "fed_grab": "strategies.fed_grab:FedGraB",
        "fedala": "strategies.fedala:FedALA",
        "fedavg": "strategies.fedavg:FedAvg",
        "fedavg_ft": "strategies.fedavg_ft:FedAvgFT",
        "fedbabu": "strategies.fedbabu:FedBABU",
        "fedbn": "strategies.fedbn:FedBN",
        "feddyn": "strategies.feddyn:FedDyn",
        "fedetf": "strategies.fedetf:FedETF",
        "fedlmd": "strategies.fedlmd:FedLMD",
        "fedloge": "strategies.fedloge:FedLoGe",
        "fedloge_experts": "strategies.fedloge_experts:FedLoGeExperts",
        "fedmoswa": "strategies.fedmoswa:FedMoSWA",
        "fednh": "strategies.fednh:FedNH",
        "fednova": "strategies.fednova:FedNova",
        "fedntd": "strategies.fedntd:FedNTD",
        "fedper": "strategies.fedper:FedPer",
        "fedproto": "strategies.fedproto:FedProto",
        "fedprox": "strategies.fedprox:FedProx",
        "fedrep": "strategies.fedrep:FedRep",
        "fedrod": "strategies.fedrod:FedROD",
        "fedsam": "strategies.fedsam:FedSAM",
        "fedswa": "strategies.fedswa:FedSWA",
        "lg_fedavg": "strategies.lg_fedavg:LgFedAvg",
        "local_only": "strategies.local_only:LocalOnly",
        "moon": "strategies.moon:MOON",
        "pfedme": "strategies.pfedme:PFedMe",
        "scaffold": "strategies.scaffold:SCAFFOLD",
    }
)
# Short names of Flower's own strategies, and the options whose default differs from Flower's.
FLOWER: dict[str, tuple[str, dict[str, object]]] = {
    "fedadam": ("flwr.serverapp.strategy:FedAdam", {}),
    "fedavgm": ("flwr.serverapp.strategy:FedAvgM", {"server_momentum": 0.9}),
    "fedyogi": ("flwr.serverapp.strategy:FedYogi", {}),
}

__getattr__ = STRATEGIES.attribute_of(__name__)
