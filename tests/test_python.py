"""fedlt in Python: the functions do what the commands do, and say what is wrong in one line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import typing
from pathlib import Path

import numpy as np
import pytest
import torch

import fedlt
from fedlt.cli import main
from fedlt.data import load_dataset
from fedlt.engines.serial import SerialEngine
from fedlt.errors import FedltError
from fedlt.runs.directory import RunDirectory

TINY = {
    "name": "tiny",
    "rounds": 2,
    "data": {
        "dataset": "synthetic",
        "options": {"num_classes": 4, "train_per_class": 40, "test_per_class": 10},
    },
    "partition": {"num_clients": 3},
    "model": {"name": "cnn", "width": 4},
    "engine": {"name": "serial"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a finished run, made once; tests only read it."""
    output = tmp_path_factory.mktemp("python") / "runs"
    return fedlt.run(TINY, f"output={output}", "strategy=fedloge", quiet=True)


def messages(call, *arguments, **more):
    with pytest.raises(FedltError) as caught:
        call(*arguments, **more)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- run


def test_a_run_is_that_of_the_command(folder, run):
    """The same bits, from a dictionary and from a file with the same keys on the command line."""
    import yaml

    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    assert main(["run", "tiny.yaml", "strategy=fedloge"]) == 0
    other = fedlt.load("runs/tiny/1")
    for one in (run, other):
        one.result["final"].pop("seconds")
    names = ("final", "last_k", "partition_hash", "config_hash")
    assert {n: other.result[n] for n in names} == {n: run.result[n] for n in names}


def test_a_finished_run_is_opened_and_another_is_refused(run, monkeypatch):
    given = [f"output={run.path.parents[1]}", "strategy=fedloge"]
    monkeypatch.setattr(SerialEngine, "run_jobs", None)  # nothing may be trained
    assert fedlt.run(TINY, *given, quiet=True) == run
    assert fedlt.run(run.config, quiet=True) == run
    assert "another rounds" in messages(fedlt.run, TINY, *given, "rounds=3")
    assert "not both" in messages(fedlt.run, TINY, *given, resume=True, overwrite=True)


def test_seeds_give_a_list(folder):
    runs = fedlt.run({**TINY, "rounds": 1, "seeds": [1, 2]}, quiet=True)
    assert [one.result["seed"] for one in runs] == [1, 2]
    assert [one.path for one in runs] == [folder / "runs/tiny/1", folder / "runs/tiny/2"]
    assert "holds the runs 1, 2" in messages(fedlt.load, "runs/tiny")
    assert len(fedlt.run({**TINY, "rounds": 1, "seeds": [1]}, quiet=True)) == 1


def test_a_plain_progress_goes_to_standard_error(folder, capfd):
    fedlt.run({**TINY, "rounds": 1})
    out, err = capfd.readouterr()
    assert out == ""
    assert "tiny seed 1: round 1 of 1" in err


@pytest.mark.parametrize(
    ("experiment", "overrides", "words"),
    [
        ("quikstart", (), "nearest: 'quickstart'"),
        ("no/such.yaml", (), "no/such.yaml: cannot be read"),
        (TINY, ("local.lrr=1",), "override 'local.lrr=1'"),
        (TINY, ("strategy=fedlog",), "nearest: 'fedloge'"),
        (TINY, ("rounds",), "expected key=value"),
        (TINY, (5,), "override 5: expected text"),
        ({**TINY, "loca": {}}, (), "the configuration: unknown key 'loca'; nearest: 'local'"),
        ({"rounds": 1}, (), "the configuration: name"),
        ({**TINY, "compare": {"rows": {}}}, (), "fedlt compare FILE runs its rows"),
        ({**TINY, "local": {"lr": object()}}, (), "local.lr: a builtins.object is no value"),
        (7, (), "a name, a path or a dictionary, not a int"),
        ("tables/digits", (), "fedlt compare FILE runs its rows"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder, experiment, overrides, words):
    assert words in messages(fedlt.run, experiment, *overrides)
    assert not [*folder.iterdir()]


def test_the_process_gets_its_state_back(folder):
    torch.set_num_threads(2)
    torch.manual_seed(5)
    fedlt.run({**TINY, "rounds": 1}, quiet=True)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert (torch.tensor([1e-40]) * 0.5).item() > 0  # denormals are kept


def test_in_a_thread_and_in_an_event_loop(folder):
    """A kernel of a notebook has a running loop; a server calls from a thread."""
    done = []
    experiment = {**TINY, "rounds": 1}
    thread = threading.Thread(target=lambda: done.append(fedlt.run(experiment, quiet=True)))
    thread.start()
    thread.join()

    async def call():
        return fedlt.run({**experiment, "name": "loop"}, quiet=True)

    done.append(asyncio.run(call()))
    assert [one.result["status"] for one in done] == ["finished"] * 2


def test_an_interrupt_leaves_a_run_that_goes_on(folder, monkeypatch):
    real, left = SerialEngine.run_jobs, [2]

    def pressed(self, jobs):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(self, jobs)

    monkeypatch.setattr(SerialEngine, "run_jobs", pressed)
    with pytest.raises(KeyboardInterrupt, match=r"after round 1: fedlt.run\(..., resume=True\)"):
        fedlt.run(TINY, quiet=True)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert "an unfinished run" in messages(fedlt.run, TINY)
    assert "unfinished run" in messages(fedlt.load, "runs/tiny/1")
    assert fedlt.run(TINY, resume=True, quiet=True).result["status"] == "finished"


# ---- load, and what a run holds


def test_wrong_paths(folder, run):
    (folder / "empty").mkdir()
    assert "neither a run directory nor" in messages(fedlt.load, "empty")
    assert "nearest: 'empty'" in messages(fedlt.load, "emty")
    assert "no such folder" in messages(fedlt.load, "nowhere/at/all")
    assert fedlt.load(run.path.parent) == run


def test_what_a_run_shows(run):
    text = repr(run)
    assert text.startswith("<Run tiny: fedloge + cross_entropy, seed 1, 2 rounds, generic ")
    page = run._repr_html_()
    assert page.count("<table>") == 2
    assert str(run.path) in page
    assert run.config.partition.num_clients == 3


def test_the_partition_is_that_of_the_run(run):
    sizes = {client: len(positions) for client, positions in run.partition.items()}
    assert sorted(sizes) == [0, 1, 2]
    evaluation = RunDirectory(run.path).evaluation(2)
    assert [*sizes.values()] == evaluation.client_counts.sum(axis=1).tolist()


def test_a_model_is_the_one_that_was_scored(run):
    """The share of test images that it gets right is the accuracy of the result."""
    dataset = load_dataset("synthetic", options=TINY["data"]["options"])
    images, labels = torch.from_numpy(dataset.test_images.copy()), dataset.test_labels
    with torch.no_grad():
        right = (run.model()(images).argmax(dim=1).numpy() == labels).mean()
        own = run.model(client=np.int64(2))(images)
    assert right == pytest.approx(run.result["final"]["generic/accuracy"])
    assert own.shape == (len(labels), 4)
    assert "has no client 3; expected 0 to 2" in messages(run.model, client=3)
    assert "client: 'a' is not the number of a client" in messages(run.model, client="a")
    assert "heaad" in messages(run.model, head="heaad")
    assert messages(fedlt.load_model, run.path / "config.yaml")


def test_names_are_imported_when_asked_for():
    code = "import sys, fedlt; dir(fedlt); fedlt.FedltError; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "pydantic", "ray"} & set(done.stdout.split())


@pytest.mark.parametrize("name", sorted(set(fedlt.__all__) - {"__version__"}))
def test_every_public_name_has_types_and_words(name):
    found = getattr(fedlt, name)
    assert found.__doc__
    assert found.__doc__.strip()
    functions = [found] if not isinstance(found, type) else [
        one for key, one in vars(found).items() if callable(one) and not key.startswith("_")
    ]  # fmt: skip
    for function in functions:
        hints = getattr(function, "__annotations__", {})
        assert "return" in hints, function
        assert function.__doc__, function


# ---- compare


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        changes = {**TINY, "rounds": 1}
        return fedlt.compare(
            changes, strategies=["fedavg", "fedrod"], seeds=[1, 2], jobs=1, quiet=True
        )


def test_a_table_is_that_of_the_command(table):
    assert [*table.runs] == ["fedavg", "fedrod"]
    assert all(len(runs) == 2 for runs in table.runs.values())
    assert table.against == "fedavg"
    assert (table.folder / "last_k.csv").is_file()
    text = repr(table)
    assert "tiny, last_k, split final, seeds 1, 2" in text
    assert "undecided" in text
    assert table._repr_html_().count("<table>") == 1
    assert table.markdown().count("| fedrod |") == 1
    assert "\\toprule" in table.latex("final")
    assert "nearest: 'last_k'" in messages(table.frame, "lastk")
    assert "best_on_test" in messages(table.verdicts, "best_on_test")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"strategies": "fedavg"}, "strategies: expected a list"),
        ({"rows": {"A": {}}}, "of labels; rows are defined in the experiment, under compare.rows"),
        ({"strategies": ["fedavg", "fedavg"]}, "fedavg is given twice"),
        ({"strategies": ["fedavgg"]}, "nearest: 'fedavg'"),
        ({"strategies": ["fedavg"], "seeds": 3}, "seeds: 3 is no list"),
        ({"strategies": ["fedavg"], "jobs": 0}, "jobs: 0"),
        ({"strategies": ["fedavg"], "rows": ["fedrod"]}, "no row 'fedrod'"),
        ({"strategies": ["fedavg"], "against": "fedrod"}, "no row 'fedrod'"),
        ({}, "has no section 'compare'"),
    ],
)
def test_a_wrong_comparison_is_one_line(folder, more, words):
    assert words in messages(fedlt.compare, TINY, **more)
    assert "give one" in messages(fedlt.compare, TINY, "seed=1", seeds=[1], strategies=["fedavg"])
    assert not [*folder.iterdir()]


def test_public_names_are_those_of_the_page():
    page = (Path(__file__).parents[1] / "docs/python.md").read_text()
    names = [*fedlt.__all__, *(f".{n}" for n in vars(fedlt.Run) if not n.startswith("_"))]
    names += [f".{n}" for n in vars(fedlt.ComparisonTable) if not n.startswith("_")]
    missing = [name for name in names if name.lstrip(".") not in page]
    assert not missing
    assert typing.get_type_hints(fedlt.ComparisonTable)["folder"] is Path


@pytest.mark.slow
def test_processes_do_not_execute_the_script_that_compares(folder):
    """A script without a guard; each process of it would compare again."""
    experiment = {**TINY, "rounds": 1}
    script = (
        "import fedlt\n"
        "print('begun')\n"
        f"table = fedlt.compare({experiment!r}, strategies=['fedavg', 'fedprox'], jobs=2)\n"
        "print(len(table.runs))\n"
    )
    (folder / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["begun", "2"]
    assert "2 of 2 runs" in done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_ray_in_an_event_loop_and_again_after_an_interrupt(folder):
    """As in the kernel of a notebook: one process, a running loop, a run that is interrupted."""
    experiment = {**TINY, "rounds": 200, "engine": {"name": "ray", "workers": 2}}
    script = (
        "import asyncio, os, signal, threading, fedlt\n"
        "from fedlt.progress import Progress\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job may ignore it
        f"experiment = {experiment!r}\n"
        "def press(progress, round, text=''):\n"
        "    if round == 3:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "async def main():\n"
        "    Progress.advance = press\n"
        "    try:\n"
        "        fedlt.run(experiment, quiet=True)\n"
        "    except KeyboardInterrupt as error:\n"
        "        print(error)\n"
        "    Progress.advance = lambda *given: None\n"
        "    short = {**experiment, 'name': 'short', 'rounds': 2}\n"
        "    print(fedlt.run(short, quiet=True).result['status'])\n"
        "    print(signal.getsignal(signal.SIGINT))\n"
        "asyncio.new_event_loop().run_until_complete(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("interrupted; to go on after round "), done.stderr
    assert lines[1] == "finished"
