"""The section ``stop``: when a run ends before its last round."""

from __future__ import annotations

from pydantic import StrictStr

from fedlt.config.ranges import Count
from fedlt.config.section import Section


class StopConfig(Section):
    """End of a run on validation images; ``rounds`` is the most that a run has."""

    metric: StrictStr  # as in result.json, such as generic/accuracy
    patience: Count  # evaluations without a better value after which the run ends
