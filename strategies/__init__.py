"""Federated strategies: one algorithm per file, both halves. These tables are the only registry."""

from __future__ import annotations

from fedlt.strategy import Strategy
from strategies.apfl import APFL
from strategies.balancefl import BalanceFL
from strategies.ccvr import CCVR
from strategies.centralised import Centralised
from strategies.creff import CReFF
from strategies.ditto import Ditto
from strategies.fed_grab import FedGraB
from strategies.fedala import FedALA
from strategies.fedavg import FedAvg
from strategies.fedavg_ft import FedAvgFT
from strategies.fedbabu import FedBABU
from strategies.fedbn import FedBN
from strategies.feddyn import FedDyn
from strategies.fedetf import FedETF
from strategies.fedlmd import FedLMD
from strategies.fedloge import FedLoGe
from strategies.fedloge_experts import FedLoGeExperts
from strategies.fedmoswa import FedMoSWA
from strategies.fednh import FedNH
from strategies.fednova import FedNova
from strategies.fedntd import FedNTD
from strategies.fedper import FedPer
from strategies.fedproto import FedProto
from strategies.fedprox import FedProx
from strategies.fedrep import FedRep
from strategies.fedrod import FedROD
from strategies.fedsam import FedSAM
from strategies.fedswa import FedSWA
from strategies.lg_fedavg import LgFedAvg
from strategies.local_only import LocalOnly
from strategies.moon import MOON
from strategies.pfedme import PFedMe
from strategies.scaffold import SCAFFOLD

__all__ = [
    "APFL",
    "CCVR",
    "FLOWER",
    "MOON",
    "SCAFFOLD",
    "STRATEGIES",
    "BalanceFL",
    "CReFF",
    "Centralised",
    "Ditto",
    "FedALA",
    "FedAvg",
    "FedAvgFT",
    "FedBABU",
    "FedBN",
    "FedDyn",
    "FedETF",
    "FedGraB",
    "FedLMD",
    "FedLoGe",
    "FedLoGeExperts",
    "FedMoSWA",
    "FedNH",
    "FedNTD",
    "FedNova",
    "FedPer",
    "FedProto",
    "FedProx",
    "FedROD",
    "FedRep",
    "FedSAM",
    "FedSWA",
    "LgFedAvg",
    "LocalOnly",
    "PFedMe",
]

STRATEGIES: dict[str, type[Strategy]] = {
    "apfl": APFL,
    "balancefl": BalanceFL,
    "ccvr": CCVR,
    "centralised": Centralised,
    "creff": CReFF,
    "ditto": Ditto,
    "fed_grab": FedGraB,
    "fedala": FedALA,
    "fedavg": FedAvg,
    "fedavg_ft": FedAvgFT,
    "fedbabu": FedBABU,
    "fedbn": FedBN,
    "feddyn": FedDyn,
    "fedetf": FedETF,
    "fedlmd": FedLMD,
    "fedloge": FedLoGe,
    "fedloge_experts": FedLoGeExperts,
    "fedmoswa": FedMoSWA,
    "fednh": FedNH,
    "fednova": FedNova,
    "fedntd": FedNTD,
    "fedper": FedPer,
    "fedproto": FedProto,
    "fedprox": FedProx,
    "fedrep": FedRep,
    "fedrod": FedROD,
    "fedsam": FedSAM,
    "fedswa": FedSWA,
    "lg_fedavg": LgFedAvg,
    "local_only": LocalOnly,
    "moon": MOON,
    "pfedme": PFedMe,
    "scaffold": SCAFFOLD,
}
# Short names of Flower's own classes, and the options that are not at Flower's defaults.
FLOWER: dict[str, tuple[str, dict[str, object]]] = {
    "fedadam": ("flwr.serverapp.strategy:FedAdam", {}),
    "fedavgm": ("flwr.serverapp.strategy:FedAvgM", {"server_momentum": 0.9}),
    "fedyogi": ("flwr.serverapp.strategy:FedYogi", {}),
}
