"""Names of natural clients: in no file of a run, unless ``report.client_names`` says so."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.cli import main
from fedlt.errors import FedltError
from fedlt.report.partition_plot import PartitionView, draw_partition
from fedlt.runs.directory import RunDirectory

CLINICS = """
import numpy as np
from fedlt.data import dataset_from_arrays

def load():
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)
    labels = np.arange(60) % 3
    who = np.repeat(["ward-north", "ward-south"], 30)
    return dataset_from_arrays("clinics", images, labels, images, labels, train_clients=who)
"""
YAML = """
{name: clinics, rounds: 1, data: {dataset: "clinics.py:load"}, partition: {scheme: natural},
 model: {name: mlp, width: 4}, engine: {name: serial}}
"""


def texts(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("shown", [False, True])
def test_names_are_in_reports_only_if_the_file_says_so(tmp_path, monkeypatch, capsys, shown):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clinics.py").write_text(CLINICS)
    (tmp_path / "a.yaml").write_text(YAML)
    said = [f"report.client_names={str(shown).lower()}"]
    assert main(["inspect", "a.yaml", *said, "--trust"]) == 0
    assert ("ward-south" in capsys.readouterr().out) == shown
    assert main(["run", "a.yaml", *said]) == 0
    assert main(["report", "runs/clinics/1", "--output", "page.html"]) == 0
    assert ("1 ward-south" in (tmp_path / "page.html").read_text()) == shown
    named = [name for name, text in texts(tmp_path / "runs").items() if b"ward-south" in text]
    assert named == (["client_names.json"] if shown else [])
    directory = RunDirectory(tmp_path / "runs/clinics/1")
    assert directory.client_names() == (("ward-north", "ward-south") if shown else ())
    assert main(["run", "a.yaml", "report.client_names=false"]) == 0  # the same run is shown
    assert "report.client_names" not in capsys.readouterr().err
    assert main(["run", "a.yaml", "report.client_names=true"]) == 0
    line = "report.client_names: the finished run holds no names; another name=... or --overwrite"
    assert (line in capsys.readouterr().err) != shown
    if shown:
        path = directory.path / "client_names.json"
        path.write_text(path.read_text().replace("north", "west"))
        with pytest.raises(FedltError, match="does not match its checksum"):
            directory.client_names()


def test_compare_says_that_finished_runs_hold_no_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clinics.py").write_text(CLINICS)
    (tmp_path / "a.yaml").write_text(YAML)
    command = ["compare", "a.yaml", "--strategies", "fedavg,local_only", "--seeds", "1,2"]
    command += ["--jobs", "1", "--no-report"]
    assert main(command) == 0
    assert "report.client_names" not in capsys.readouterr().err
    assert main([*command, "report.client_names=true"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == (
        "report.client_names: 4 finished runs hold no names; another name=... runs them anew, with "
        "names"
    )
    assert main([*command, "report.client_names=true", "name=b"]) == 0
    assert "report.client_names" not in capsys.readouterr().err


def test_a_picture_of_many_clients_is_drawn(tmp_path):
    counts = np.random.default_rng(0).integers(0, 9, (3000, 5))
    draw_partition(PartitionView(counts, list("abcde")), tmp_path / "many.png")
    assert (tmp_path / "many.png").stat().st_size > 1000
