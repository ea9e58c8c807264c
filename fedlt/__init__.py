"""fedlt: a federated long-tail learning simulator. Start reading at ``fedlt.simulate``.

Flower posts telemetry and Ray usage statistics by default, and both read their switch on import.
They are switched off here, before anything of fedlt imports them, unless the user has set them.
"""

from __future__ import annotations

import os

__all__: list[str] = []

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
