"""Kept runs of a comparison that never ran: results with given accuracies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlt.runs.files import write_sealed
from fedlt.runs.fingerprint import RESULTS_VERSION
from fedlt.runs.recorded import make_record

Figures = Sequence[tuple[float, float, float]]  # generic, few, personal accuracy, by seed from 1


def write_kept(folder: Path, rows: Mapping[str, Figures], *, deal: str = "deal", **more: Any):
    """Write kept runs to ``folder/<row>/<seed>``.

    Args:
        folder: The comparison's folder.
        rows: Folder of a row -> its figures.
        deal: Equal in comparisons with the same partitions.
        more: Further entries of every result.
    """
    for row, figures in rows.items():
        for seed, (generic, few, personal) in enumerate(figures, start=1):
            place, run = folder / row / str(seed), f"{row}{seed}"
            place.mkdir(parents=True)
            metrics = {
                "generic/accuracy": generic,
                "generic/few": few,
                "personal/accuracy": personal,
            }
            line = {"round": 4, **metrics, "run": run}
            (place / "rounds.jsonl").write_text(json.dumps(line) + "\n")
            result = {
                "name": row, "seed": seed, "rounds": 4, "split": "final", "reference": None,
                "stopped": None, "selected": None, "generic_model": "shared", "streams": [],
                "shots": {"scheme": "rank", "many": [0], "medium": [], "few": [1]},
                "class_names": ["a", "b"], "local_test": "exact",
                "scored_on": {"balanced": True, "without": [], "counts": [5, 5]},
                "prior": {"use": "local_masked", "gamma": 0.5, "source": "own"},
                "final": {"round": 4, **metrics}, "last_k": {"k": 1, **metrics},
                "best_on_test": metrics, "bytes_down": 1024, "bytes_up": 2048, "bytes_once": 0,
                "seconds": 3.0, "partition_hash": f"{deal}{seed}", "peak_memory": None,
                "results_version": RESULTS_VERSION, "record": make_record(place, {}), **more,
            }  # fmt: skip
            write_sealed(place / "result.json", result, run)
