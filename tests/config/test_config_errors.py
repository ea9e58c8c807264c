"""Every mistake in a file is one line: the place, the key, the value and what is valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlt.config import Config, load_config
from fedlt.config.explain import _ELSEWHERE, known_keys
from fedlt.errors import FedltError

BASE = "name: a\nrounds: 3\n"


def message(text: str | bytes, *overrides: str) -> str:
    path = Path("a.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FedltError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["a.yaml", "empty"]),
        ("# only a comment\n", ["empty"]),
        ("- a\n- b", ["a.yaml", "holds a list", "expected a mapping"]),
        ("words", ["holds a str"]),
        ("a: [b", ["line 2", "did not find expected ',' or ']'"]),
        ("a: 1\n---\nb: 2", ["another document"]),
        (f"{BASE}name: b", ["line 3", "'name' is given twice"]),
        (f"{BASE}local: {{lr: 1, lr: 2}}", ["'lr' is given twice"]),
        (f"{BASE}1: b", ["key 1 is not text"]),
        ("name: !!python/object:os.system {}", ["could not determine a constructor"]),
        ("[" * 5000, ["nested too deeply"]),
        ("name: &a [*a]", ["nested too deeply"]),
        (f"rounds: {'9' * 6000}", ["line 1", "a whole number of 6000 digits"]),
        (b"\xff\xfe\x00", ["not a text file"]),
        ("a: \x00", ["control characters"]),
    ],
)
def test_file_that_is_not_a_configuration(text, parts):
    line = message(text)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("path", "reason"),
    [("none.yaml", "No such file"), (".", "Is a directory"), ("a\0b", "null byte")],
)
def test_file_that_cannot_be_read(path, reason):
    with pytest.raises(FedltError, match=reason):
        load_config(path)


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        ("data: {imbalance: 3}", ["unknown key 'data.imbalance'", "'data.imbalance_factor'"]),
        ("round: 3", ["unknown key 'round'", "nearest: 'rounds'", "known: "]),
        ("lr: 3", ["unknown key 'lr'", "nearest: 'local.lr'"]),
        ("local: {learning_rate: 1}", ["unknown key 'local.learning_rate'", "nearest: 'local.lr'"]),
        ("fraction_fit: 0.1", ["unknown key 'fraction_fit'", "nearest: 'clients_per_round'"]),
        ("alpha: 0.5", ["unknown key 'alpha'", "nearest: 'partition.dirichlet_alpha'"]),
        ("personal: {refresh: {epoch: 1}}", ["nearest: 'personal.refresh.epochs'"]),
        ("local: {lr: fast}", ["local.lr is 'fast'", "expected a number"]),
        ("local: {lr: true}", ["local.lr is True", "expected a number"]),
        ("local: {lr: '1'}", ["local.lr is '1'", "expected a number"]),
        ("local: {lr: .inf}", ["local.lr is inf", "expected a finite number"]),
        ("local: {lr: 0}", ["local.lr is 0", "more than 0"]),
        ("local: {epochs: 1.5}", ["local.epochs is 1.5", "a whole number"]),
        ("local: 3", ["local is 3", "expected a mapping"]),
        ("local: [1]", ["local is [1]", "expected a mapping"]),
        ("local:", ["local is None", "expected a mapping"]),
        ("data: {imbalance_factor: 0.5}", ["data.imbalance_factor is 0.5", "at least 1"]),
        ("partition: {dirichlet_alpha: 0}", ["partition.dirichlet_alpha is 0", "more than 0"]),
        ("partition: {num_clients: 0}", ["partition.num_clients is 0", "at least 1"]),
        ("partition: {scheme: dirichle}", ["unknown 'dirichle'", "nearest: 'dirichlet'"]),
        ("engine: {workers: 0}", ["engine.workers is 0", "'auto' or at least 1"]),
        ("evaluate: {clients: some}", ["evaluate.clients is 'some'", "'all' or a whole number"]),
        ("evaluate: {clients: 11}", ["evaluate.clients: 11", "partition.num_clients: 10"]),
        ("clients_per_round: 11", ["clients_per_round: 11", "partition.num_clients: 10"]),
        ("clients_per_round: 0", ["clients_per_round is 0", "at least 1"]),
        ("prior: {use: global}", ["prior.use: global needs source: sum, secure_sum or oracle"]),
        ("prior: {source: oracle}", ["use: local_masked needs source: own"]),
        ("prior: {gamma: 1.5}", ["prior.gamma is 1.5", "at most 1"]),
        (
            "prior: {use: mix, source: secure_sum}\nclients_per_round: 1",
            ["secure_sum needs at least 2 clients per round, not 1"],
        ),
        ("faults: {dropout: 0.1}", ["unknown key 'faults.dropout'", "known: ", "faults.lost"]),
        ("faults: {lost: 0.1}", ["faults.lost is 0.1", "expected a mapping"]),
        ("faults: {lost: {rate: 1.5}}", ["faults.lost.rate is 1.5", "at most 1"]),
        ("faults: {lost: {aim: fw}}", ["'uniform' or 'few'", "nearest: 'few'"]),
        ("faults: {straggler: {spread: 1}}", ["faults.straggler.deadline is missing"]),
        ("faults: {straggler: {deadline: 0}}", ["straggler.deadline is 0", "more than 0"]),
        ("faults: {late: {first: 5, last: 4}}", ["faults.late.last: 4 is before first: 5"]),
        ("faults: {late: {share: 0.1, first: 9}}", ["faults.late.first: 9", "rounds: 3"]),
        ("faults: {late: {share: 0.1, last: 9}}", ["faults.late.last: 9", "rounds: 3"]),
        ("faults: {corrupt: {kind: huge}}", ["corrupt.kind is 'huge'", "'nan', 'inf' or 'scale'"]),
        ("faults: {corrupt: {factor: .inf}}", ["corrupt.factor is inf", "a finite number"]),
        ("faults: {stale: {rounds: 0}}", ["faults.stale.rounds is 0", "at least 1"]),
        ("faults: {detect: {max_ratio: 1}}", ["detect.max_ratio is 1", "more than 1"]),
        ("seed: 1\nseeds: [1, 2]", ["seed or seeds, not both"]),
        ("seeds: [1, 1]", ["[1, 1] names a seed twice"]),
        ("seeds: []", ["seeds is []", "at least one entry"]),
        ("seeds: [1, -2]", ["seeds.1 is -2", "at least 0"]),
        ("strategy: 3", ["strategy is 3"]),
        ("client: {name: 3}", ["client.name is 3", "expected text"]),
        ("output: 3", ["output is 3", "expected text"]),
    ],
)
def test_mistakes_in_the_file(extra, parts):
    line = message(BASE + extra)
    assert line.startswith("a.yaml: ")
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("name", ["a/b", "..", "", "-x", "3", "a b", "'x\n'"])
def test_name_is_a_folder_name(name):
    assert "name is " in message(f"name: {name}\nrounds: 1")


def test_missing_keys():
    assert message("rounds: 3") == "a.yaml: name is missing"
    assert message("name: x") == "a.yaml: rounds is missing"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("local.lr=fast", ["override 'local.lr=fast'", "local.lr is 'fast'"]),
        ("local.lrr=1", ["override 'local.lrr=1'", "unknown key 'local.lrr'", "'local.lr'"]),
        ("local=3", ["override 'local=3'"]),
        ("rounds.a=3", ["rounds is 3", "expected a mapping"]),
        ("a=[b", ["override 'a=[b'", "not valid YAML"]),
        ("client={name:mdcs}", ["override 'client={name:mdcs}'", "write 'name: mdcs'"]),
        ("=3", ["expected key=value"]),
        ("a..b=3", ["expected key=value"]),
        ("rounds", ["expected key=value"]),
        ("strategy.name=", ["strategy.name is None"]),
    ],
)
def test_mistakes_in_an_override(override, parts):
    line = message(BASE, override)
    assert all(part in line for part in parts), line


def test_long_values_are_cut():
    assert len(message(f"{BASE}local: {{lr: {'x' * 5000}}}")) < 200


def test_every_word_of_other_libraries_leads_to_a_key():
    """A word of the list is no key of the configuration, and the key beside it is one."""
    last = {key.rpartition(".")[2] for key in known_keys(Config)}
    assert set(_ELSEWHERE.values()) <= last
    assert not set(_ELSEWHERE) & last
