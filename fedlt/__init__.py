"""fedlt: a federated long-tail learning simulator. Start reading at ``fedlt.simulate``.

    import fedlt

    run = fedlt.run("quickstart", "rounds=5")  # as the command does; or fedlt.load(PATH)
    table = fedlt.compare("quickstart", strategies=["fedavg", "fedrod"], seeds=[1, 2, 3, 4, 5])

Flower posts telemetry and Ray usage statistics by default, and both read their switch on import.
They are switched off here, before anything of fedlt imports them, unless the user has set them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedlt.api import compare, load_model, run
    from fedlt.data.flower_datasets import LongTailPartitioner
    from fedlt.errors import FedltError, RunError, StoppedError
    from fedlt.report.compared import ComparisonTable
    from fedlt.report.opened import Run, load

    __version__: str

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__all__ = [
    "ComparisonTable",
    "FedltError",
    "LongTailPartitioner",
    "Run",
    "RunError",
    "StoppedError",
    "__version__",
    "compare",
    "load",
    "load_model",
    "run",
]

_HOMES = {  # module of each name
    **dict.fromkeys(("compare", "load_model", "run"), "fedlt.api"),
    **dict.fromkeys(("FedltError", "RunError", "StoppedError"), "fedlt.errors"),
    "ComparisonTable": "fedlt.report.compared",
    **dict.fromkeys(("Run", "load"), "fedlt.report.opened"),
    "LongTailPartitioner": "fedlt.data.flower_datasets",
}


def __getattr__(name: str) -> object:
    """Return a name of ``__all__``, imported when asked for, so that ``import fedlt`` stays cheap.

    Raises:
        AttributeError: For every other name.
    """
    if name == "__version__":
        from fedlt.machine.installed import installed_version

        return installed_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'fedlt' has no attribute {name!r}")
    import importlib

    found: object = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
