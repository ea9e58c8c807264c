"""Files beside a comparison's table: values that a search chose, rows with their own rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlt.machine.reading import read_json

TUNED = "tuned.json"
RATES = "rates.json"  # row -> "own" or "shared": whether its changes have a learning rate


def read_beside(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of such a file, by label; {} if there is none."""
    path = folder / name
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def known_labels(folder: Path) -> list[str]:
    """Return the labels of the rows that ever ran in a comparison's folder; [] if nothing says."""
    return [*dict.fromkeys([*read_beside(folder, RATES), *read_beside(folder, TUNED)])]


def rounds_each(rounds: int) -> str:
    """Return the number of rounds of each trial of a search in words."""
    return f"{rounds} round{'' if rounds == 1 else 's'} each"
