"""The command line: verbs, one-line errors, exit codes, and nothing written after a mistake."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import fedlt
from fedlt import simulate
from fedlt.cli import main
from fedlt.config import load_config
from fedlt.config.experiments import experiments
from fedlt.errors import FedltError, RunError
from fedlt.runs import checkpoints
from fedlt.runs.creation import create_run
from fedlt.runs.directory import RunDirectory
from fedlt.runs.fingerprint import declared

BASE = "name: a\nrounds: 3\n"


class Partition:
    def save(self, path):
        Path(path).write_text("{}")


class Runs:
    """Stands in for fedlt.simulate: makes the directory and a result, or what a test wants."""

    def __init__(self):
        self.calls = []
        self.error = None

    def run(self, config, *, resume, overwrite, progress, estimate):
        self.calls.append((config.seed, resume, overwrite))
        directory = RunDirectory.of(config)
        if directory.decide(config, resume=resume, overwrite=overwrite) == "show":
            return directory.result()
        if directory.state == "absent" or overwrite:
            create_run(directory, config, Partition(), declared(config), overwrite=overwrite)
        progress.start(config.rounds, 0)
        for number in range(1, config.rounds + 1):
            if self.error is not None and number == 2:
                raise self.error
            progress.advance(number, "generic 50.0 %")
        result = {
            "strategy": config.strategy.name,
            "client": config.client.name,
            "seed": config.seed,
            "rounds": config.rounds,
            **dict.fromkeys(("split", "shots", "partition_hash", "seconds", "last_k")),
            "final": {"generic/accuracy": 0.1 * config.seed, "personal/accuracy": 0.75},
        }
        directory.write_result(result, {})
        return result


@pytest.fixture
def runs(monkeypatch):
    fake = Runs()
    module = types.ModuleType("fedlt.simulate")
    module.run, module.check_runs = fake.run, simulate.check_runs
    monkeypatch.setitem(sys.modules, "fedlt.simulate", module)
    monkeypatch.setattr(fedlt, "simulate", module, raising=False)
    return fake


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def write(text: str = BASE) -> str:
    Path("a.yaml").write_text(text)
    return "a.yaml"


def everything() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if "__pycache__" not in path.parts)


def one_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("executes ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_run_shows_progress_table_and_place(runs, capsys):
    assert main(["run", write(), "local.lr=1e-3"]) == 0
    out, err = capsys.readouterr()
    assert "a seed 1: round 3 of 3" in err
    assert "fedavg + cross_entropy, seed 1, round 3" in out
    assert "75.0" in out
    assert out.splitlines()[-1] == f"{Path.cwd()}/runs/a/1"
    assert load_config("runs/a/1/config.yaml").local.lr == 0.001


def test_finished_run_is_shown_again(runs, capsys):
    assert main(["run", write()]) == 0
    capsys.readouterr()
    assert main(["run", "a.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "10.0" in out
    assert err == ""
    assert main(["run", "a.yaml", "--overwrite"]) == 0
    assert runs.calls == [(1, False, False), (1, False, False), (1, False, True)]


def test_several_seeds_in_turn(runs, capsys):
    assert main(["run", write(f"{BASE}seeds: [1, 3]")]) == 0
    out = capsys.readouterr().out
    assert [seed for seed, *_ in runs.calls] == [1, 3]
    assert "20.0±>100" in out
    assert [line for line in out.splitlines() if "/runs/a/" in line] == [
        f"{Path.cwd()}/runs/a/{seed}" for seed in (1, 3)
    ]


def test_all_seeds_are_checked_before_the_first_starts(runs, capsys):
    config = load_config(write(f"{BASE}seeds: [1, 3]"))
    second = config.runs()[1]
    create_run(RunDirectory.of(second), second, Partition(), declared(second))
    assert main(["run", "a.yaml"]) == 2
    line = one_line(capsys)
    assert "runs/a/3 holds an unfinished run; resume continues it" in line
    assert runs.calls == []
    assert main(["run", "a.yaml", "--resume"]) == 0
    assert runs.calls == [(1, True, False), (3, True, False)]


def test_another_configuration_is_named(runs, capsys):
    assert main(["run", write()]) == 0
    capsys.readouterr()
    assert main(["run", "a.yaml", "local.lr=3"]) == 2
    assert "another local.lr; name=... keeps both" in one_line(capsys)
    assert main(["run", "a.yaml", "local.lr=3", "--resume"]) == 2
    assert "cannot be resumed" in one_line(capsys)
    assert main(["run", "a.yaml", "local.lr=3", "name=b"]) == 0


def test_interrupt_names_the_command_that_resumes(runs, capsys):
    runs.error = KeyboardInterrupt()
    assert main(["run", write(), "model={norm: group}"]) == 130
    error = capsys.readouterr().err
    command = "fedlt run a.yaml 'model={norm: group}' --resume"
    assert error.splitlines()[-1] == f"interrupted; to go on from the start: {command}"
    runs.error = None
    assert main(["run", "a.yaml", "model={norm: group}", "--resume"]) == 0


def test_run_that_cannot_go_on(runs, capsys):
    runs.error = RunError("round 2: every update is not finite\nlower local.lr")
    assert main(["run", write()]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line == "error: round 2: every update is not finite lower local.lr"


def test_damaged_checkpoints(runs, capsys):
    folder = Path("saved")
    checkpoints.save_checkpoint(folder, round=1, tensors={}, meta={})
    (folder / "round_000001" / "checkpoint.json").write_bytes(b"")
    with pytest.raises(FedltError) as caught:
        checkpoints.load_checkpoint(folder)
    runs.error = caught.value
    assert main(["run", write()]) == 2
    assert (
        "round_000001 cannot be used (checkpoint.json does not match its checksum)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "arguments", "parts"),
    [
        (BASE, ["local.lrr=1"], ["unknown key 'local.lrr'", "nearest: 'local.lr'"]),
        (f"{BASE}rounds_: 1", [], ["a.yaml: unknown key 'rounds_'", "nearest: 'rounds'"]),
        (BASE, ["rounds=many"], ["rounds is 'many'", "a whole number"]),
        (BASE, ["partition.dirichlet_alpha=0"], ["partition.dirichlet_alpha is 0"]),
        (BASE, ["data.imbalance_factor=0.9"], ["data.imbalance_factor is 0.9", "at least 1"]),
        (BASE, ["clients_per_round=11"], ["more than partition.num_clients: 10"]),
        (BASE, ["strategy=fedagv"], ["unknown strategy 'fedagv'", "nearest: 'fedavg'"]),
        (BASE, ["strategy.mu=1"], ["strategy.mu: unknown hyperparameter of 'fedavg'"]),
        (BASE, ["client=cros_entropy"], ["unknown client", "nearest: 'cross_entropy'"]),
        (BASE, ["strategy=none.py:S"], ["no file"]),
        (BASE, ["strategy=s.py:S"], ["is not a class derived from fedlt.strategy.Strategy"]),
        ("", [], ["the file is empty"]),
        ("- a", [], ["holds a list; expected a mapping"]),
        ("a: [", [], ["not valid YAML"]),
        (BASE, ["--resume", "--overwrite"], ["give resume or overwrite, not both"]),
        (BASE, ["--resum"], ["No such option"]),
    ],
)
def test_bad_input_of_run(runs, capsys, text, arguments, parts):
    Path("s.py").write_text("class S:\n    pass\n")
    write(text)
    before = everything()
    assert main(["run", "a.yaml", *arguments]) == 2
    line = one_line(capsys)
    assert all(part in line for part in parts), line
    assert everything() == before
    assert runs.calls == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["data.dataset=digit"], ["data.dataset: unknown 'digit'", "nearest: 'digits'"]),
        (["model.name=cn"], ["unknown backbone 'cn'", "nearest: 'cnn'"]),
        (["partition.num_clients=5000"], ["5000"]),
        (["partition.file=none.json"], ["partition.file", "none.json"]),
        (["--png", "a.yaml/a.png"], ["a.yaml/a.png cannot be written", "a.yaml is not a folder"]),
    ],
)
def test_bad_input_of_inspect(capsys, arguments, parts):
    write()
    before = everything()
    assert main(["inspect", "a.yaml", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert all(part in captured.err for part in parts), captured.err
    assert everything() == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run"], "Missing argument 'FILE'"),
        (["run", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
        (["inspect", "none.yaml"], "none.yaml: cannot be read"),
        (["runn"], "No such command 'runn'"),
        (["--verson"], "No such option"),
        (["list"], "Missing argument"),
        (["list", "models_"], "is not one of"),
    ],
)
def test_usage_errors_are_one_line(capsys, arguments, part):
    assert main(arguments) == 2
    assert part in one_line(capsys)
    assert everything() == []


def test_inspect_counts_every_image(capsys):
    assert main(["inspect", write(), "data.imbalance_factor=10", "partition.num_clients=4"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    clients = [row for row in rows if len(row) == 14 and row[0].isdigit()]
    assert [row[0] for row in clients] == ["0", "1", "2", "3"]
    assert all(int(row[1]) == sum(int(n) for n in row[4:] if n != "·") for row in clients)
    assert f"per round {np.sum([int(row[1]) for row in clients]):,} images" in out
    assert "MiB down" in out
    assert everything() == ["a.yaml"]


def test_inspect_draws_where_told(capsys):
    assert main(["inspect", write(), "--png", "p.png"]) == 0
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert everything() == ["a.yaml", "p.png"]


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("strategies", "fedavg"),
        ("strategies", "fedyogi"),
        ("clients", "cross_entropy"),
        ("models", "resnet20"),
        ("datasets", "cifar10"),
    ],
)
def test_list(capsys, what, name):
    assert main(["list", what]) == 0
    assert name in capsys.readouterr().out.split()


def test_list_experiments_by_name_with_their_first_line(capsys):
    """Whole lines, for copying, whatever lies in the working directory."""
    Path("experiments").mkdir()
    Path("experiments/b.yaml").write_text("name: b\n")
    assert main(["list", "experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(experiments())
    first = experiments()["quickstart"].read_text().split("\n")[0]
    assert f"quickstart  {first.removeprefix('# ')}" in lines


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fedlt ")
    assert main(["--help"]) == 0
    assert "inspect" in capsys.readouterr().out


def test_help_imports_nothing_heavy_and_turns_telemetry_off():
    code = (
        "import sys, os; from fedlt.cli import main; main(['--help']); "
        "heavy = {'torch', 'flwr', 'ray', 'matplotlib', 'numpy', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy; assert os.environ['FLWR_TELEMETRY_ENABLED'] == '0'; "
        "assert os.environ['RAY_USAGE_STATS_ENABLED'] == '1'"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "RAY_USAGE_STATS_ENABLED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
