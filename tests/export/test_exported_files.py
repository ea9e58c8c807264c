"""Files of exported models: what they hold, damage, and files of strangers."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from doc_blocks import BLOCKS
from torch import nn

from fedlt.data import prepare_data
from fedlt.errors import FedltError
from fedlt.export import export_run, load_model, scored_model
from fedlt.export.description import value_range
from fedlt.export.onnx_file import onnx_bytes
from fedlt.export.program import program_of, trace
from fedlt.export.program_model import ProgramModel
from fedlt.export.safetensors_file import safetensors_bytes

SCRIPTS = {block.file: block.code for block in BLOCKS if block.page == "docs/export.md"}


@pytest.fixture(scope="module")
def outcome(reference):
    return reference(strategy="fedloge")


@pytest.fixture(scope="module")
def traced(outcome):
    """The program of FedLoGe's generic model and its tensors."""
    model = scored_model(outcome.directory.path)
    exported = trace(model)
    return exported, *program_of(exported, model.info)


@pytest.fixture(scope="module")
def files(outcome, tmp_path_factory):
    """The generic model in the two formats that need no extra."""
    folder = tmp_path_factory.mktemp("exported")
    for kind in ("safetensors", "pt2"):
        export_run(outcome.directory.path, output=folder / f"model.{kind}")
    return folder


def save_test_set(outcome, folder: Path) -> None:
    config = outcome.directory.config()
    data = prepare_data(config.data, config.partition, seed=config.seed)
    np.savez(folder / "test.npz", images=data.eval_images, labels=data.eval_labels)


def test_the_page_scores_a_pt2_file(outcome, files, monkeypatch, capsys):
    """The script compares with the hits of the run, which stand in the JSON; here a second time."""
    save_test_set(outcome, files)
    monkeypatch.chdir(files)
    exec(compile(SCRIPTS["score_pt2.py"], "score_pt2.py", "exec"), {})
    with np.load(outcome.directory.evaluations / "round_3.npz") as file:
        hits = file["generic.confusion"][0].diagonal().tolist()
    assert capsys.readouterr().out == f"{hits} True\n"
    assert "fedlt" not in SCRIPTS["score_pt2.py"]
    assert len(SCRIPTS["score_pt2.py"].split("\n")) <= 12


def test_the_formula_of_the_page(outcome, files, capsys, monkeypatch):
    """Backbone, mean, deviation and head of the file give the logits, without fedlt."""
    save_test_set(outcome, files)
    monkeypatch.chdir(files)
    found = {}
    exec(compile(SCRIPTS["score_safetensors.py"], "score_safetensors.py", "exec"), found)
    torch.testing.assert_close(
        found["logits"], load_model("model.safetensors")(found["images"]), rtol=1e-5, atol=1e-5
    )
    assert "fedlt" not in SCRIPTS["score_safetensors.py"]


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ([1, 8, 8], "uint8", [0, 255]),
        ([3, 8, 8], "float32", [0, 1]),
        ([5, 1, 1], "float32", None),
    ],
)
def test_the_range_of_images(shape, dtype, expected):
    assert value_range(shape, dtype) == expected


def test_an_exported_file_is_the_start_of_a_run(lab, outcome, files):
    """Its backbone; the head is not used."""
    path = files / "model.safetensors"
    view = lab.federation(model={"weights": str(path)}).view
    names = [n for n in view.build_model().names() if n.startswith("backbone.")]
    sent = outcome.checkpoint.tensors["broadcast"]
    assert all(torch.equal(view.build_model().state()[name], sent[name]) for name in names)
    assert view.start.lines[-1] == "weights: not used: head.bias, head.weight, mean, std"


def run_alone(script: str, folder: Path) -> str:
    """Run a script of the page in a process that cannot import fedlt."""
    barred = f"import sys\nsys.modules['fedlt'] = None\n{SCRIPTS[script]}\n"
    (folder / "script.py").write_text(barred)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedloge"])
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
@pytest.mark.parametrize("client", [None, 3])
def test_scripts_without_fedlt(reference, tmp_path, strategy, kind, client):
    """onnxruntime's last bits differ; on these images no class changes."""
    outcome = reference(strategy=strategy)
    save_test_set(outcome, tmp_path)
    export_run(outcome.directory.path, client=client, output=tmp_path / f"model.{kind}")
    assert run_alone(f"score_{kind}.py", tmp_path).endswith(" True\n")


@pytest.mark.parametrize("kind", ["safetensors", "pt2"])
def test_a_file_is_read_back(outcome, files, kind):
    images = torch.arange(3 * 64, dtype=torch.uint8).view(3, 1, 8, 8)
    read, eager = load_model(files / f"model.{kind}"), scored_model(outcome.directory.path)
    assert torch.equal(read(images), eager(images))
    assert torch.equal(read(images[:1]), eager(images[:1]))
    assert read.info == eager.info
    assert read.state_dict().keys() == eager.state_dict().keys()
    for wrong in (images.float(), images[0], images[:, :, :4]):
        with pytest.raises(FedltError, match=r"the model takes uint8 images \(batch, 1, 8, 8\)"):
            read(wrong)


def test_the_json_says_what_the_file_is(outcome, files):
    beside = json.loads((files / "model.pt2.json").read_text())
    assert beside["class_names"] == ["0", "1", "2", "3"]
    shape = ["batch", 1, 8, 8]
    assert beside["input"] == {"shape": shape, "dtype": "uint8", "range": [0, 255]}
    assert load_model(files / "model.safetensors").info["input"] == beside["input"]
    assert (beside["head"], beside["heads"]) == ("realigned", ["realigned", "sse_c", "auxiliary"])
    assert beside["score"]["accuracy"] == outcome.result["final"]["generic/accuracy"]
    assert beside["run"] == outcome.directory.run
    text = (files / "model.pt2").read_bytes() + (files / "model.pt2.json").read_bytes()
    for private in (str(Path.home()), str(Path.cwd()), sys.prefix):
        assert private.encode() not in text, "a path of this machine"


def test_tensors_are_a_plain_state_dict(outcome, files):
    """The backbone's by the model's own names; the head is GA-FR's: rows of norm 1."""
    found = safetensors.torch.load_file(files / "model.safetensors")
    shared = outcome.groups["broadcast"]
    own = {name for name in shared if name.startswith("backbone.")}
    assert own == {name for name in found if name.startswith("backbone.")}
    assert all(torch.equal(found[name], shared[name]) for name in own)
    norms = found["head.weight"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(4))


# ---- damage


def refused(path) -> str:
    with pytest.raises(FedltError) as caught:
        load_model(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("kind", ["safetensors", "pt2"])
def test_damage_is_found(files, tmp_path, kind):
    data = (files / f"model.{kind}").read_bytes()
    weight = load_model(files / f"model.{kind}").state_dict()["head.weight"].numpy().tobytes()
    at = data.index(weight)
    path = tmp_path / f"bad.{kind}"
    for bad in (b"", data[:100], data[:-200], data[:at] + b"\xff" + data[at + 1 :]):
        path.write_bytes(bad)
        refused(path)


def test_files_that_are_no_models(tmp_path):
    assert "no file" in refused(tmp_path / "missing.pt2")
    assert "none of .safetensors, .pt2, .onnx" in refused(tmp_path / "model.pth")
    (tmp_path / "folder.pt2").mkdir()
    refused(tmp_path / "folder.pt2")
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, plain)
    assert "fedlt has not written it" in refused(plain)
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(2),)), tmp_path / "other.pt2")
    assert "fedlt has not written it" in refused(tmp_path / "other.pt2")


# ---- files of strangers


class Bomb:
    """Unpickling writes a file."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return open, (self.place, "w")


def test_nothing_in_an_archive_is_unpickled(files, tmp_path):
    """torch.export.load reads sample inputs and tensors by pickle; load_model opens neither."""
    mark, path = tmp_path / "mark", tmp_path / "model.pt2"
    bomb = pickle.dumps(Bomb(mark))
    with zipfile.ZipFile(files / "model.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            bad = name.endswith(("sample_inputs/model.pt", "weights/weight_0"))
            new.writestr(name, bomb if bad else old.read(name))
    assert "a tensor has another size" in refused(path)
    with zipfile.ZipFile(files / "model.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, bomb if name.endswith("inputs/model.pt") else old.read(name))
    load_model(path)
    assert not mark.exists()
    pickle.loads(bomb).close()
    assert mark.exists()  # the bomb works


@pytest.mark.parametrize(
    "step",
    [
        ["x", "aten.from_file.default", ["/etc/passwd", False, 10], {}],
        ["x", "aten.__class__.default", [], {}],
        ["x", "operator.attrgetter", ["x"], {}],
        ["x", "builtins.eval", ["1"], {}],
        ["x", "aten.relu.default", [{"value": "unknown"}], {}],
        ["x", "aten.relu.default", [{"torch": "load"}], {}],
        ["x", "aten.relu.default", [{"other": "images"}], {}],
        ["x", "aten.relu.default"],
        ["x", "aten.relu.nothing", [{"value": "images"}], {}],
        7,
    ],
    ids=str,
)
def test_steps_that_a_file_may_not_have(traced, tmp_path, step):
    _, program, tensors = traced
    bad = dataclasses.replace(program, steps=[step, *program.steps])
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(bad, tensors))
    refused(path)


@pytest.mark.parametrize(
    "field",
    [{"format": 2}, {"logits": "x"}, {"inputs": {"x": "head.weight2"}}, {"sha256": ""}],
    ids=str,
)
def test_programs_that_fit_no_model(traced, tmp_path, field):
    _, program, tensors = traced
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(dataclasses.replace(program, **field), tensors))
    refused(path)


def test_an_operator_out_of_the_list_is_not_written(outcome):
    """Such a model is not read back either."""
    model = scored_model(outcome.directory.path)
    model.predict = lambda logits: torch.special.i0(logits.mean(dim=1))
    with pytest.raises(FedltError, match=r"operator 'aten\.special_i0\.default' is not one"):
        program_of(trace(model), model.info)


def test_a_model_that_reads_its_images_values_is_refused_in_one_line(outcome):
    model = scored_model(outcome.directory.path)
    model.predict = lambda z: z.mean(dim=1) if z.sum() > 0 else z[:, 0]
    with pytest.raises(
        FedltError, match=r"fedloge [+] cross_entropy with cnn cannot be exported"
    ) as e:
        trace(model)
    assert "\n" not in str(e.value)


def test_a_loaded_model_keeps_only_what_later_steps_read(traced):
    """Of a chain of steps every value is freed as soon as the next one has read it."""
    _, program, tensors = traced
    last = [step.last for step in ProgramModel(program, tensors)._steps]
    freed = [name for names in last for name in names]
    values = {program.images, *program.inputs, *(step[0] for step in program.steps)}
    assert len(freed) == len(set(freed))
    assert set(freed) == values - {program.logits}


# ---- onnx


@pytest.mark.slow
def test_onnx_files(outcome, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs fedlt[onnx]")
    path = tmp_path / "model.onnx"
    export_run(outcome.directory.path, output=path)
    images = torch.arange(3 * 64, dtype=torch.uint8).view(3, 1, 8, 8)
    read, eager = load_model(path), scored_model(outcome.directory.path)
    torch.testing.assert_close(read(images), eager(images), atol=1e-4, rtol=1e-4)
    assert read.info == eager.info
    with pytest.raises(FedltError, match="the model takes uint8 images"):
        read(images.float())
    data, proto = path.read_bytes(), onnx.load(path)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path.cwd()).encode() not in data
    path.write_bytes(data[:-50])
    refused(path)
    proto.graph.node[0].output[0] = "other"
    path.write_bytes(proto.SerializeToString())
    assert "checksum" in refused(path)
    del proto.metadata_props[:]
    path.write_bytes(proto.SerializeToString())
    assert "fedlt has not written it" in refused(path)


def test_a_missing_extra_is_named(traced, monkeypatch):
    exported, program, _ = traced
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(FedltError, match=r"pip install 'fedlt\[onnx\]'"):
        onnx_bytes(exported, program.info)
