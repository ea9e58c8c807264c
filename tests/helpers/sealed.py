"""Run directories edited on purpose, their files made anew so that they are of one run again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np

from fedlt.config import load_config, settings_of
from fedlt.runs.files import read_sealed, write_sealed
from fedlt.runs.fingerprint import Fingerprint
from fedlt.runs.recorded import make_record


def edit(path, changes):
    """Change keys of a sealed file, which stays of its run."""
    run = json.loads(path.read_text())["run"]
    write_sealed(path, read_sealed(path) | changes, run)


def reseal(folder):
    """Make every file of a run directory one of the run that its configuration is now."""
    found = Fingerprint.from_json(read_sealed(folder / "fingerprint.json"))
    found = replace(found, settings=settings_of(load_config(folder / "config.yaml")))
    write_sealed(folder / "fingerprint.json", found.to_json(), found.run)
    write_sealed(folder / "environment.json", read_sealed(folder / "environment.json"), found.run)
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "run": found.run}) + "\n" for row in rows]
    (folder / "rounds.jsonl").write_text("".join(lines))
    digests = {}
    for path in (folder / "evaluations").glob("*.npz"):
        np.savez_compressed(path, **{**np.load(path), "run": np.asarray(found.run)})
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if (folder / "result.json").exists():
        result = read_sealed(folder / "result.json") | {"record": make_record(folder, digests)}
        write_sealed(folder / "result.json", result, found.run)
