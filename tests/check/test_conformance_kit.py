"""The kit finds what is broken with the check that is meant for it, and passes what is not."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from fedlt.check import CHECKS, conformance, run_check, run_checks, subject_of
from fedlt.client import ClientPlugin
from fedlt.errors import FedltError

BROKEN = Path(__file__).with_name("broken.py")
CLASSES = {
    node.name: node.lineno
    for node in ast.parse(BROKEN.read_text()).body
    if isinstance(node, ast.ClassDef)
}
# class -> the check meant for it, words of its line, the verb where it is; other checks that see it
CAUGHT = {
    "OneStream": ("streams", "two streams", "loss", ""),
    "AnswersNothing": ("trains", "fails", "AnswersNothing.aggregate", ""),
    "SetsField": ("trains", "cannot assign to field 'seen'", "aggregate", ""),
    "NumpyNoise": ("random", "NumPy's global generator", "objective", "pure resume engines"),
    "PythonNoise": ("random", "Python's random", "local_update", "pure resume engines"),
    "SeedsNumpy": ("random", "NumPy's global generator", "local_update", ""),
    "TorchNoiseOnServer": ("random", "aggregate draws", "aggregate", "weights order engines"),
    "UnkeyedPersonal": (
        "first-state", "the tasks before it", "init_personal", "random pure resume engines"
    ),
    "RoundPersonal": ("first-state", "with the round", "init_personal", ""),
    "BroadcastPersonal": ("first-state", "with the broadcast", "init_personal", ""),
    "WritesBroadcast": ("writes", "client.broadcast", "local_update", "pure resume engines"),
    "WritesState": ("writes", "state.broadcast", "aggregate", ""),
    "WritesCounts": ("writes", "log_prior", "loss", "engines resume"),
    "ModuleMemory": ("pure", "answers otherwise", "objective", "resume engines"),
    "LooseTensor": ("groups", "heads.head.scale", "build", ""),
    "ReplacesParameter": ("groups", "replaces heads.head.weight", "local_update", ""),
    "AddsParameter": ("groups", "heads.head.extra", "local_update", ""),
    # Four clients with 2, 19, 13 and 26 images: 60 / 4.
    "DividesByClients": ("weights", "the weights sum to 15", "aggregate", "trains"),
    "HalvesTheMean": ("weights", "the weights sum to 0.5", "aggregate", ""),
    "UnweightedStep": ("weights", "other weights of the same sum", "aggregate", ""),
    "FollowsTheFirst": ("order", "if clients answer as", "aggregate", ""),
    "HoldsFunction": ("picklable", "cannot be pickled", "class HoldsFunction", ""),
    "DetachedLoss": ("trains", "scalar tensor with a gradient", "objective", ""),
    "RaisesLate": ("trains", "KeyError: 'momentum'", "aggregate", ""),
    "ForgetsHead": ("update", "Update.sums lacks heads.head", "local_update", ""),
    "AnswersUnlike": ("update", "count.2 is in one Update.sums only", "local_update", "trains"),
    "ReadsClock": ("clock", "reads time.time", "objective", "pure resume engines"),
    "ReadsDate": ("clock", "reads datetime.today", "loss", ""),
    "WrongHead": ("builds", "generic fails: head 'head' gives shape", "", ""),
}  # fmt: skip
KEEPING = {  # class -> the check that might take it amiss
    "ReadsData": "stackable",
    "KeyedDraws": "random",
    "ServerMomentum": "weights",
    "Median": "weights",
    "Unshared": "weights",
    "Unweighted": "weights",
}


@functools.cache
def subject(name):
    return subject_of(f"{BROKEN}:{name}", {})


@functools.cache
def result_of(name, check):
    return run_check(check, subject(name))


def test_every_class_is_tried():
    assert sorted(CLASSES) == sorted([*CAUGHT, *KEEPING])
    assert {check for check, *_ in CAUGHT.values()} == set(CHECKS) - {
        "stackable",  # for information: test_what_cannot_be_stacked_says_why
        "resume",  # whatever breaks it breaks purity as well
        "engines",
    }


@pytest.mark.parametrize("name", CAUGHT)
def test_broken_class_is_caught_by_the_check_meant_for_it(name):
    check, words, verb, _ = CAUGHT[name]
    found = result_of(name, check)
    assert found.status == "fail"
    assert not found.line.startswith("raises ")
    assert words in found.line
    assert found.change
    assert verb in found.where


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUGHT)
def test_no_other_check_fails_but_those_that_see_the_same_mistake(name):
    check, _, _, others = CAUGHT[name]
    results = [*run_checks(subject(name))]
    assert not [str(r) for r in results if r.line.startswith("raises ")]
    failing = {r.name for r in results if r.status == "fail"}
    assert check in failing
    assert failing <= {check, *others.split()}


@pytest.mark.parametrize(
    "name",
    ["NumpyNoise", "ReadsClock", "RaisesLate", "HoldsFunction", "SetsField", "AnswersNothing"],
)
def test_the_place_is_in_the_file(name):
    check = CAUGHT[name][0]
    file, line = result_of(name, check).where.partition(" ")[0].rsplit(":", 1)
    assert Path(file).name == "broken.py"
    following = [first for first in CLASSES.values() if first > CLASSES[name]]
    assert CLASSES[name] - 1 <= int(line) < min(following)


@pytest.mark.parametrize(("name", "check"), KEEPING.items(), ids=KEEPING)
def test_class_that_keeps_the_contract_passes_the_check_that_might_err(name, check):
    assert result_of(name, check).status in ("ok", "note")


@pytest.mark.slow
@pytest.mark.parametrize("name", KEEPING)
def test_class_that_keeps_the_contract_passes(name):
    assert not [str(r) for r in run_checks(subject(name)) if r.status in ("fail", "skip")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedavg", "fedloge", "cross_entropy", "balanced_softmax"])
def test_built_in_methods_pass_without_a_note(name):
    """That they pass at all is tested for every method: tests/test_contracts.py."""
    assert not [str(r) for r in run_checks(subject_of(name, {})) if r.status != "ok"]


def test_what_cannot_be_stacked_says_why():
    found = result_of("ReadsData", "stackable")
    assert found.status == "note"
    assert "the objective reads client.data" in found.line
    assert f"{BROKEN}" in found.line


def test_what_a_weighted_mean_and_a_rule_are_called():
    assert "weights sum to one" in result_of("Median", "weights").line
    assert "rule of its own for 11 of 11" in result_of("ServerMomentum", "weights").line
    assert result_of("Unshared", "weights").status == "note"


@pytest.mark.parametrize("name", ["ModuleMemory", "NumpyNoise"])
@pytest.mark.parametrize("check", ["resume", "engines"])
def test_runs_that_depend_on_the_process_differ(check, name):
    """What purity sees of one task, a resumed run and other workers show of a whole run."""
    found = result_of(name, check)
    assert found.status == "fail"
    assert "differs" in found.line


@pytest.mark.slow
@pytest.mark.ray
def test_ray_shows_what_one_process_hides(tmp_path):
    """A tensor per process, made when the file is read: every worker of Ray has another."""
    path = tmp_path / "process.py"
    path.write_text(
        "import os\n"
        "from fedlt.strategy import Strategy\n\n\n"
        "class OwnProcess(Strategy):\n"
        "    def objective(self, client, batch):\n"
        "        return super().objective(client, batch) * (1 + os.getpid() % 97)\n"
    )
    subject = subject_of(f"{path}:OwnProcess", {})
    assert run_check("engines", subject).status == "ok"
    found = run_check("engines", subject_of(f"{path}:OwnProcess", {}, ray=True))
    assert found.status == "fail"
    assert "on Ray with 2 workers" in found.line


class Local(ClientPlugin):
    """A class that is given as such."""


test_class_itself = conformance(Local)
test_relative_path_and_hyperparameters = conformance("broken.py:ServerMomentum", beta=0.1)
test_plugin_with_another_strategy = conformance("balanced_softmax", beside="fedloge")


def test_a_failing_case_prints_what_to_change():
    case = conformance("broken.py:HalvesTheMean")
    with pytest.raises(pytest.fail.Exception) as caught:
        case("weights")
    text = str(caught.value)
    assert "the weights sum to 0.5" in text
    assert "change: divide sums by total.weight" in text
    assert "broken.py:" in text
    case("order")


def test_cases_need_no_order():
    """A case tried alone explains a crash by the checks that it needs."""
    with pytest.raises(pytest.skip.Exception, match="see trains"):
        conformance("broken.py:DetachedLoss")("pure")


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("fedavgg", {}, "no strategy or client plugin 'fedavgg'; nearest: 'fedavg'"),
        (f"{BROKEN}:Nothing", {}, "has no 'Nothing'"),
        (f"{BROKEN}:ServerMomentum", {"beta": "x"}, "strategy.beta is 'x'; expected a number"),
        (f"{BROKEN}:ServerMomentum", {"gamma": 1}, "unknown hyperparameter"),
        (f"{BROKEN}:CALLS", {}, "is not a class derived from"),
        ("none.py:Mine", {}, "no file"),
    ],
)
def test_bad_input_is_one_line(target, options, words):
    with pytest.raises(FedltError, match=words) as caught:
        subject_of(target, options)
    assert "\n" not in str(caught.value)
