"""Results on standard output, progress on standard error; JSON, quiet and verbose everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedlt.check import TINY
from fedlt.cli import main
from fedlt.cli.help import MODES
from fedlt.cli.screen import Screen, on_screen, screen
from fedlt.config.yaml12 import dump
from fedlt.errors import FedltError

SMALL = TINY | {"name": "a", "rounds": 2, "output": "runs"}
FILES = {
    "a.yaml": SMALL,
    "b.yaml": SMALL | {"name": "b", "compare": {
        "search": {"local.lr": [0.1]}, "rows": {"A": {}, "B": {"local": {"lr": 0.05}}}
    }},
    "c.yaml": SMALL | {"name": "c", "compare": {"rows": {"A": {}}}, "reproduce": {
        "about": "Me, 2026",
        "figures": [{"row": "A", "metric": "generic/accuracy", "moment": "final", "unit": "percent",
                     "tolerance": 99, "source": "mine", "value": 50}],
    }},
    "mine.py": "from strategies import FedAvg\nprint('import')\nclass Mine(FedAvg):\n    pass\n",
}  # fmt: skip
PROGRESS = ("round 1 of", "estimate:", "runs are finished", "left:", "executes", "trial steps")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files and a finished run; the commands of this module share it."""
    path = tmp_path_factory.mktemp("screen")
    for name, content in FILES.items():
        (path / name).write_text(content if isinstance(content, str) else dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert main(["run", "a.yaml", "--quiet"]) == 0
    return path


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def asked(capsys, *arguments: str, code: int = 0):
    """Return the document of a command with ``--json``, and its standard error."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_json_of_a_run_is_its_result_and_its_folder(capsys):
    document, err = asked(capsys, "run", "a.yaml")
    (run,) = document["runs"]
    stored = json.loads(Path("runs/a/1/result.json").read_text())
    assert run["path"] == str(Path.cwd() / "runs/a/1")
    assert run["final"] == stored["final"]
    assert err == ""  # it was there


def test_json_of_a_new_run_leaves_progress_and_prints_on_standard_error(capsys):
    """Also what a user's module prints, which is executed meanwhile."""
    document, err = asked(capsys, "run", "a.yaml", "strategy=mine.py:Mine", "name=new")
    assert document["runs"][0]["strategy"].endswith("mine.py:Mine")
    for words in ("executes", "import", "estimate:", "round 2 of 2"):
        assert words in err


def test_json_of_a_comparison(capsys):
    document, err = asked(capsys, "compare", "b.yaml", "--jobs", "1", "seeds=[1,2]", "--no-report")
    assert (document["name"], document["which"], document["against"]) == ("b", "last_k", "A")
    (table,) = document["tables"]
    assert [row["method"] for row in table["rows"]] == ["A", "B"]
    assert [run["seed"] for run in table["rows"][1]["runs"]] == [1, 2]
    for run in table["rows"][0]["runs"]:
        stored = json.loads(Path(run["path"], "result.json").read_text())
        assert run["last_k"] == stored["last_k"]
    assert {one["view"] for one in document["verdicts"]} == {"generic", "personal"}
    assert all(Path(file).is_file() for file in document["files"])
    assert document["failed"] == []
    assert "4 of 4 runs" in err


OTHERS = {  # command -> what its document says
    "estimate a.yaml name=x": lambda d: d["total"]["runs"] == 1 and d["rows"][0]["seconds"] > 0,
    "inspect a.yaml": lambda d: [len(row) for row in d["client_counts"]] == [4] * 5,
    "list strategies": lambda d: {"fedavg", "fedyogi"} <= {one["name"] for one in d["strategies"]},
    "list clients": lambda d: {one["kind"] for one in d["clients"]} >= {"data", "loss"},
    "list experiments": lambda d: "quickstart" in [one["name"] for one in d["experiments"]],
    "status runs": lambda d: ("finished", 2) in [(r["state"], r["round"]) for r in d["runs"]],
    "report runs/a/1 --output r.html": lambda d: d["files"] == ["r.html"],
    "rescore runs/a/1": lambda d: d["tables"][0]["rows"][0]["method"] == "a",
    "realign runs/a/1 --method tau_norm": lambda d: set(d["outcomes"][0]) >= {"before", "path"},
    "sweep b.yaml --jobs 1": lambda d: d["rows"]["A"][0]["values"] == {"local.lr": 0.1},
    "reproduce c.yaml --jobs 1": lambda d: d["figures"][0]["word"] == "within",
    "copy quickstart made": lambda d: d["files"] == ["made/quickstart.yaml"],
    "new client mine_too": lambda d: len(d["files"]) == len(d["next"]) == 3,
    "check fedavg --no-ray": lambda d: d["keeps"] and len(d["checks"]) > 5,
}


SLOW = ("reproduce", "check", "report", "realign", "sweep", "estimate", "rescore")
each = [
    pytest.param(one, marks=pytest.mark.slow) if one.split()[0] in SLOW else one for one in OTHERS
]


@pytest.mark.parametrize("command", each)
def test_json_of_other_commands(command, capsys):
    document, _ = asked(capsys, *command.split())
    assert OTHERS[command](document)


@pytest.mark.parametrize(
    "command",
    [
        "run a.yaml name=p",
        *(
            pytest.param(line, marks=pytest.mark.slow)
            for line in (
                "compare b.yaml name=q --no-report --jobs 1",
                "sweep b.yaml name=r --jobs 1",
                "reproduce c.yaml name=s --jobs 1",
                "estimate a.yaml name=t",
            )
        ),
    ],
)
def test_progress_is_on_standard_error_and_quiet_leaves_it_out(command, capsys):
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    assert [words for words in PROGRESS if words in captured.out] == []
    assert [words for words in PROGRESS if words in captured.err] != []
    assert main(["--quiet", *command.replace("name=", "name=z").split()]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == ""
    assert len(quiet.out.splitlines()) == len(captured.out.splitlines())


@pytest.mark.slow
def test_a_failed_check_is_told_in_json_too(capsys):
    document, _ = asked(capsys, "check", "mine.py:Mine", "--no-ray", "--with", "mixup")
    assert document["keeps"]
    Path("broken.py").write_text(
        "from strategies import FedAvg\n"
        "class Broken(FedAvg):\n    def objective(self, *a): return 'no loss'\n"
    )
    document, _ = asked(capsys, "check", "broken.py:Broken", "--no-ray", code=1)
    assert not document["keeps"]
    assert "fail" in {one["status"] for one in document["checks"]}


def test_a_mistake_prints_no_document(capsys):
    assert main(["run", "none.yaml", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_quiet_and_verbose_contradict(capsys):
    assert main(["--quiet", "list", "models", "--verbose"]) == 2
    assert capsys.readouterr().err == "error: give --quiet or --verbose, not both\n"


def test_verbose_prints_every_round_and_the_traceback(capsys):
    assert main(["run", "a.yaml", "rounds=20", "evaluate.every=20", "name=v", "--verbose"]) == 0
    err = capsys.readouterr().err
    assert [f"round {n} of 20" in err for n in range(1, 21)] == [True] * 20
    assert main(["--verbose", "run", "a.yaml", "strategy=fedavgg"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("mode", MODES)
def test_the_options_stand_before_and_after_the_verb(mode, capsys):
    outputs = []
    for arguments in ([f"--{mode}", "list", "engines"], ["list", "engines", f"--{mode}"]):
        assert main(arguments) == 0
        outputs.append(capsys.readouterr())
    assert outputs[0] == outputs[1]


def test_what_other_processes_print_goes_to_standard_error_too():
    code = (
        "import subprocess, sys; from fedlt.cli.screen import Screen, on_screen, screen\n"
        "with on_screen(Screen(json=True)):\n"
        "    subprocess.run([sys.executable, '-c', 'print(1)'])\n"
        "    screen().document({'x': float('nan'), 'path': __import__('pathlib').Path('p')})\n"
        "    print(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert json.loads(done.stdout) == {"x": None, "path": "p"}
    assert done.stderr.split() == ["1", "2"]


def test_a_screen_ends_with_its_command(capsys):

    def late():
        with on_screen(Screen(json=True)):
            screen().document({"a": 1})
            raise FedltError("later")

    with pytest.raises(FedltError, match="later"):
        late()
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    assert screen() == Screen()
