"""Models out: the scored model of a finished run as a module, and as a file.

run directory --scored_model--> ScoredModel --export_run--> FILE, FILE.json
                                                            FILE --load_model--> module
"""

from __future__ import annotations

from fedlt.export.exporting import Exported, export_run, load_model
from fedlt.export.opening import scored_model
from fedlt.export.scored_model import ScoredModel

__all__ = ["Exported", "ScoredModel", "export_run", "load_model", "scored_model"]
