"""Facts about the runs of a report: equal and different values of the configurations, warnings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fedlt.comparing.cells import notes_of
from fedlt.comparing.prior_words import prior_words
from fedlt.comparing.sheet import DASH, Sheet, number
from fedlt.comparing.table import view_notes
from fedlt.comparing.terminal import faults_text
from fedlt.comparing.tuning import lines_above
from fedlt.comparing.verdicts import MIN_SEEDS
from fedlt.report.finished import MOMENT, Method, Reading, RunRecord

_ASIDE = ("name", "output", "seed", "seeds", "checkpoint.every", "trackers")
_MACHINERY = ("engine.", "diagnostics.")  # keys that never change a figure on one kind of machine
_METHOD = ("strategy.", "client.")  # keys of the compared methods
_MOVED = ("clients_per_round", "batchnorm", "rounds")  # keys named in the warnings if they differ
_MOVED_SECTIONS = ("data.", "partition.", "model.", "prior.", "evaluate.", "personal.", "faults.")

Keys = Sequence[str]


def _compared(run: RunRecord) -> dict[str, Any]:
    kept = {k: v for k, v in run.config.items() if k not in _ASIDE}
    return {k: v for k, v in kept.items() if not k.startswith(_MACHINERY)}


def _split(methods: Sequence[Method]) -> tuple[Keys, Keys]:
    """Return the keys with equal values in all runs, and the other keys."""
    known = [_compared(run) for method in methods for run in method.runs]
    keys = sorted({key for one in known for key in one})
    missing = object()
    differ = [
        k for k in keys if any(one.get(k, missing) != known[0].get(k, missing) for one in known)
    ]
    return [k for k in keys if k not in differ], differ


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "none", True: "yes", False: "no"}[value]
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def equal_sheet(methods: Sequence[Method]) -> Sheet:
    """Return a table of the configuration values that all runs share."""
    values = _compared(methods[0].runs[0])
    rows = [[key, _text(values[key])] for key in _split(methods)[0]]
    return Sheet("Held equal", ["setting", "value in every run"], rows)


def differences_sheet(methods: Sequence[Method]) -> Sheet | None:
    """Return a table of the configuration values that differ, by method; None if all are equal."""
    differ = _split(methods)[1]
    if not differ:
        return None
    own = [key for key in differ if key.startswith(_METHOD)]
    rest = [key for key in differ if not key.startswith(_METHOD)]
    rows = [[method.label, _said(method, own), _said(method, rest)] for method in methods]
    note = (
        "Tuned settings, such as a learning rate, may differ; what a method is judged on may not."
    )
    return Sheet("Not equal", ["method", "the method itself", "everything else"], rows, [note])


def _said(method: Method, keys: Keys) -> str:
    words = []
    for key in keys:
        values = [run.config[key] for run in method.runs if key in run.config]
        if values and all(value == values[0] for value in values):
            words.append(f"{key}: {_text(values[0])}")
        elif values:
            words.append(f"{key}: {' | '.join(map(_text, values))} (by seed)")
    return "; ".join(words) or DASH


def versions_sheet(reading: Reading) -> Sheet:
    """Return a table of versions and hardware, with all values where runs differ."""
    keys = dict.fromkeys(key for run in reading.runs for key in run.environment if key != "files")
    rows = [[key, _values(run.environment.get(key) for run in reading.runs)] for key in keys]
    engines = _values(run.config.get("engine.name") for run in reading.runs)
    files = {name: None for run in reading.runs for name in run.environment.get("files", {})}
    own = [["the user's own files", ", ".join(files)]] if files else []
    return Sheet("Versions and hardware", ["what", "value"], [*rows, ["engine", engines], *own])


def _values(found: Iterable[object]) -> str:
    return " | ".join(dict.fromkeys(map(_text, found)))


def runs_sheet(reading: Reading) -> Sheet:
    """Return a table with one row per run: hashes, class prior, excluded updates, faults, time."""
    rows = [
        [
            method.label,
            str(run.seed),
            str(run.result["partition_hash"])[:12],
            str(run.result["config_hash"])[:12],
            prior_words(run.result),
            str(len(run.result.get("excluded") or [])),
            faults_text(run.result) or "none",
            number(run.result["seconds"], "z.1f"),
        ]
        for method in reading.methods
        for run in method.runs
    ]
    columns = [
        "method", "seed", "partition", "configuration", "class prior", "updates left out",
        "faults", "seconds",
    ]  # fmt: skip
    note = (
        "Partition and configuration are the first 12 digits of their hashes, whole in result.json."
    )
    weights = [line for run in reading.runs for line in run.result.get("weights") or []]
    return Sheet("Every run", columns, rows, [note, *dict.fromkeys(weights)])


def warnings(reading: Reading) -> list[str]:
    """Return warnings in plain words that matter before a reader trusts a difference."""
    lines = [
        *_seed_lines(reading.methods),
        *_difference_lines(reading.methods),
        *_partition_lines(reading.methods),
        *_machine_lines(reading),
        *_trouble_lines(reading),
    ]
    lines += _scored_lines(reading.methods)
    above = lines_above({method.label: method.results for method in reading.methods})
    lines += map(_sentence, above)
    tuned = {run.result["split"] for run in reading.runs}
    if tuned == {"tune"}:
        lines.append("Figures are on the validation split (data.split: tune), not on the test set.")
    notes = dict.fromkeys(line for run in reading.runs for line in view_notes(run.result))
    lines += map(_sentence, notes)
    if any(run.config.get("data.dataset") == "digits" for run in reading.runs):
        lines.append(
            "The data set digits is tiny: its rare classes have about 50 test images each, whose "
            "chance error alone is 3.5 points. It shows mechanics, not science."
        )
    if reading.unfinished:
        lines.append(f"Not finished, left out: {', '.join(reading.unfinished)}.")
    return lines


def _sentence(line: str) -> str:
    """Return a line as a sentence; a dotted key at its beginning keeps its small letter."""
    begins_with_key = "." in line.split(maxsplit=1)[0].rstrip(":.")
    return f"{line if begins_with_key else line[0].upper() + line[1:]}."


def _scored_lines(methods: Sequence[Method]) -> list[str]:
    notes = notes_of({method.label: method.results for method in methods}, MOMENT)
    return [_sentence(line) for line in notes]


def _seed_lines(methods: Sequence[Method]) -> list[str]:
    seeds = [tuple(run.seed for run in method.runs) for method in methods]
    lines = []
    if len(methods) > 1 and len(set(seeds)) > 1:
        said = "; ".join(
            f"{m.label}: {', '.join(map(str, s))}" for m, s in zip(methods, seeds, strict=True)
        )
        lines.append(f"The methods did not run with the same seeds ({said}): do not compare them.")
    few = min(map(len, seeds))
    if few < MIN_SEEDS and len(methods) > 1:
        lines.append(
            f"{few} seed{'s' if few > 1 else ''} each: no difference is called real under "
            f"{MIN_SEEDS} seeds."
        )
    elif few == 1:
        lines.append("One seed: nothing says how much another seed would change the figures.")
    return lines


def _difference_lines(methods: Sequence[Method]) -> list[str]:
    differ = _split(methods)[1]
    moved = [k for k in differ if k in _MOVED or k.startswith(_MOVED_SECTIONS)]
    if not moved:
        return []
    return [
        f"The methods differ in more than themselves: {', '.join(moved)} (see the table below)."
    ]


def _partition_lines(methods: Sequence[Method]) -> list[str]:
    by_seed: dict[int, set[str]] = {}
    for method in methods:
        for run in method.runs:
            by_seed.setdefault(run.seed, set()).add(run.result["partition_hash"])
    differ = [str(seed) for seed, hashes in by_seed.items() if len(hashes) > 1]
    if not differ:
        return []
    return [f"The clients hold other images from method to method in seeds {', '.join(differ)}."]


def _machine_lines(reading: Reading) -> list[str]:
    keys = ("cpu", "platform", "torch", "numpy")
    machines = {tuple(str(run.environment.get(key)) for key in keys) for run in reading.runs}
    if len(machines) == 1:
        return []
    return ["The runs are from different machines or versions: their seconds do not compare."]


def _trouble_lines(reading: Reading) -> list[str]:
    lines = []
    for method in reading.methods:
        excluded = sum(len(run.result.get("excluded") or []) for run in method.runs)
        if excluded:
            lines.append(
                f"{method.label}: {excluded} updates of clients were left out of the sums."
            )
        empty = [run.result["final"].get("personal/excluded") for run in method.runs]
        if any(empty):
            lines.append(
                f"{method.label}: clients without test images, not scored: {_values(empty)}."
            )
        never = [run.result["final"].get("personal/never") for run in method.runs]
        if any(never):
            how = "scored with the generic model, tuned where everybody's is"
            lines.append(f"{method.label}: clients never sampled, {how}: {_values(never)}.")
        faults = [text for run in method.runs if (text := faults_text(run.result))]
        if faults:
            lines.append(f"{method.label}: faults happened: {'; '.join(faults)}.")
    return lines
