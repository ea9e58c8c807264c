"""The only place that touches Flower: records, the server adapter, the two apps.

Flower posts telemetry by default. It is switched off here, before Flower is imported, unless the
user has set it.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
