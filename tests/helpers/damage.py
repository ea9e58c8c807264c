"""What can happen to the files of a run directory, and what every command must answer then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fedlt.check.tiny_runs import StopAfter, StopError
from fedlt.cli import main
from fedlt.config import load_config
from fedlt.simulate import run

EXPERIMENT = """
seed: 1
rounds: 3
data: {dataset: synthetic, imbalance_factor: 5, options: {num_classes: 4, train_per_class: 40}}
partition: {num_clients: 4}
model: {width: 4}
local: {batch_size: 8}
strategy: fedloge
engine: {name: serial}
checkpoint: {every: 1}
"""
COMMANDS = ("run", "resume", "report", "rescore", "realign", "compare")
DAMAGES = ("emptied", "cut", "flipped", "swapped", "removed")


def make_runs(folder: Path) -> None:
    """Make a finished and an unfinished run of seeds 1 and 2, and the files for the commands."""
    (folder / "a.yaml").write_text(f"name: row\noutput: runs/c\n{EXPERIMENT}")
    rows = "compare: {rows: {row: {}}}\n"
    (folder / "c.yaml").write_text(f"name: c\noutput: runs\n{EXPERIMENT}{rows}")
    for seed in (1, 2):
        for state in ("finished", "unfinished"):
            output = folder / state
            config = load_config(folder / "a.yaml", [f"seed={seed}", f"output={output}"])
            try:
                run(config, progress=StopAfter(2) if state == "unfinished" else None)
            except StopError:
                continue


def files_of(folder: Path) -> list[str]:
    """Return every file of a run directory, and of checkpoints the newest."""
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    newest = max((folder / "checkpoints").glob("round_*")).name
    old = [p.name for p in (folder / "checkpoints").glob("round_*") if p.name != newest]
    return [name for name in found if not any(f"checkpoints/{one}/" in name for one in old)]


def damage(path: Path, kind: str, other: Path) -> None:
    """Damage a file; ``other`` is the same file of another seed."""
    content = bytearray(path.read_bytes())
    if kind == "removed":
        path.unlink()
    elif kind == "swapped":
        shutil.copyfile(other, path)
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))


def command(verb: str) -> list[str]:
    """Return the command line of a verb on ``runs/c/row/1`` in the working directory."""
    return {
        "run": ["run", "a.yaml"],
        "resume": ["run", "a.yaml", "--resume"],
        "report": ["report", "runs/c/row/1", "--output", "page.html"],
        "rescore": ["rescore", "runs/c/row/1"],
        "realign": ["realign", "runs/c/row/1", "--method", "tau_norm", "--tau", "1"],
        "compare": ["compare", "c.yaml", "--jobs", "1", "--no-report"],
    }[verb]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a folder, without what realign adds."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "realign" not in path.parts
    }


def numbers(result: Path) -> dict[str, object]:
    """Return a result's numbers without its seconds."""
    content = json.loads(result.read_text())
    return {
        moment: {name: v for name, v in content[moment].items() if name != "seconds"}
        for moment in ("final", "last_k", "best_on_test")
    }


class Bench:
    """Copies of two runs on which commands are tried."""

    def __init__(self, stored: Path, here: Path) -> None:
        self.stored, self.here = stored, here
        self.known: dict[tuple[str, str], str] = {}  # what commands say of undamaged runs
        for name in ("a.yaml", "c.yaml"):
            shutil.copyfile(stored / name, here / name)

    def fresh(self, state: str) -> Path:
        """Return an undamaged run directory."""
        shutil.rmtree(self.here / "runs", ignore_errors=True)
        target = self.here / "runs" / "c" / "row" / "1"
        shutil.copytree(self.stored / state / "row" / "1", target)
        return target

    def told(self, state: str, verb: str, capsys: object) -> str:
        """Return what a command prints of an undamaged run."""
        if (state, verb) not in self.known:
            self.fresh(state)
            main(command(verb))
            self.known[state, verb] = shown(verb, self.here, capsys.readouterr().out)
        return self.known[state, verb]

    def try_one(self, state: str, name: str, kind: str, verb: str, capsys: object) -> str:
        """Damage a file, give a command, check the answer, and return it in a word or a line."""
        undisturbed = self.told(state, verb, capsys)
        folder = self.fresh(state)
        damage(folder / name, kind, self.stored / state / "row" / "2" / name)
        before = bytes_of(folder)
        code = main(command(verb))
        output = capsys.readouterr()
        case = f"{state}: {name} {kind}, {verb}: {output.err}"
        assert "Traceback" not in output.out + output.err, case
        if code == 0:
            wanted = numbers(self.stored / "finished" / "row" / "1" / "result.json")
            if verb in ("run", "resume", "compare"):
                assert numbers(folder / "result.json") == wanted, case
            if verb in ("report", "rescore", "run", "resume", "realign"):
                assert shown(verb, self.here, output.out) == undisturbed, case
            return "the numbers" if not output.err else f"the numbers; {output.err}"
        assert code in (1, 2), case
        errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, case
        named = [Path(name).name, "resume", "no finished"]  # or the state of the run
        named += [Path(name).parent.name] if name.startswith("checkpoints/round") else []
        assert any(word in errors[0] for word in named), case
        assert bytes_of(folder) == before, f"something was deleted or written: {case}"
        return errors[0]


def shown(verb: str, here: Path, output: str) -> str:
    """Return what a command shows of a run's numbers: its last table, its page."""
    if verb == "report":
        page = here / "page.html"
        text = page.read_text() if page.exists() else ""
        page.unlink(missing_ok=True)
        return text
    start = output.rfind("(accuracies in %)")
    return output[max(start, 0) :]
