"""Reading, overriding and writing configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedlt.config
from fedlt.config import (
    Config,
    PluginConfig,
    config_hash,
    load_config,
    to_yaml,
)
from fedlt.config.model_section import ModelConfig
from fedlt.errors import FedltError

BASE = "name: a\nrounds: 3\n"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(text: str, *overrides: str) -> Config:
    Path("a.yaml").write_text(text)
    return load_config("a.yaml", overrides)


def test_design_example_loads():
    config = load("""
name: cifar10-lt-cpu
seed: 1                       # or seeds: [1, 2, 3]
data: {dataset: cifar10, imbalance_factor: 100, profile: exponential, split: final}
partition: {scheme: dirichlet, dirichlet_alpha: 0.5, num_clients: 20, min_samples: 2}
model: {name: cnn, width: 16, norm: batch}
strategy: {name: fedloge, sparsity: 0.6, profile: paper}
client: {name: cross_entropy}
local: {epochs: 2, batch_size: 32, lr: 0.5, head_lr: 0.1, momentum: 0.5, augment: crop_flip}
rounds: 150
clients_per_round: 8
batchnorm: average
prior: {use: local_masked, source: own}
evaluate: {every: 10, personal_every: 30, shots: auto, local_test: exact, clients: all}
engine: {name: ray, workers: auto}
checkpoint: {every: 5}
""")
    assert config.strategy == PluginConfig(
        name="fedloge", options={"sparsity": 0.6, "profile": "paper"}
    )
    assert config.data.imbalance_factor == 100.0
    assert config.local.head_lr == 0.1
    assert config.output == str(Path.cwd() / "runs")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), ("2", 2.0), (".5", 0.5), ("+1.5e+2", 150.0), ("5.", 5.0)],
)
def test_numbers_as_people_write_them(text, value):
    assert load(f"{BASE}local: {{lr: {text}}}").local.lr == value
    assert load(BASE, f"local.lr={text}").local.lr == value


@pytest.mark.parametrize("text", ["off", "no", "yes", "1:30", "2024-01-01", "1_000", "0o8"])
def test_yaml_1_1_surprises_are_text(text):
    assert load(f"{BASE}strategy: {{name: x, word: {text}}}").strategy.options == {"word": text}


def test_overrides_apply_in_order_and_last_wins():
    config = load(BASE, "rounds=5", "rounds=7", "data.options.images=[1, 2]", "model.norm=group")
    assert config.rounds == 7
    assert config.data.options == {"images": [1, 2]}
    assert config.model.norm == "group"


def test_override_of_an_alias_leaves_the_other_alone():
    config = load(f"{BASE}strategy: {{name: x, a: &v {{k: 1}}, b: *v}}", "strategy.a.k=2")
    assert config.strategy.options == {"a": {"k": 2}, "b": {"k": 1}}


def test_plugin_short_form():
    assert load(f"{BASE}strategy: fedprox", "strategy.mu=0.1").strategy == PluginConfig(
        name="fedprox", options={"mu": 0.1}
    )
    assert load(BASE, "strategy.mu=1").strategy == PluginConfig(name="fedavg", options={"mu": 1})
    assert load(f"{BASE}strategy: {{name: fedprox, mu: 1}}", "strategy=fedavg").strategy == (
        PluginConfig(name="fedavg")
    )


def test_model_short_form():
    assert load(f"{BASE}model: resnet8").model.name == "resnet8"
    assert load(f"{BASE}model: fedavg_cnn").model.norm == "none"  # as with a section
    assert load(f"{BASE}model: resnet8", "model.width=4").model == ModelConfig(
        name="resnet8", width=4
    )
    assert load(f"{BASE}model: {{name: cnn, width: 4}}", "model=mlp").model.width is None
    there = load(f"{BASE}model: nets.py:Net").model.name
    assert Path(there.rpartition(":")[0]).is_absolute()
    assert Config(name="a", rounds=1, model="mlp").model.name == "mlp"


def test_seed_override_replaces_seeds_and_the_reverse():
    assert load(f"{BASE}seeds: [1, 2]", "seed=4").runs()[0].seed == 4
    assert load(f"{BASE}seed: 4", "seeds=[1, 2]").seeds == [1, 2]


def test_runs_gives_one_configuration_per_seed():
    runs = load(f"{BASE}seeds: [3, 1]").runs()
    assert [(run.seed, run.seeds) for run in runs] == [(3, None), (1, None)]
    assert load(BASE).runs() == [load(BASE)]


@pytest.mark.parametrize(
    "text",
    [
        BASE,
        f"{BASE}seeds: [1, 2]",
        f"{BASE}clients_per_round: 4\nlocal: {{lr: 1e-7, head_lr: 3}}\nevaluate: {{clients: 3}}",
        f"{BASE}strategy: {{name: x, t: ['0128', '1e5', 'off', '1_000', 'null', '~', '', ' a']}}",
        f"{BASE}strategy: {{name: x, options: 3, deep: {{a: [1.5, true, null]}}}}",
    ],
)
def test_to_yaml_loads_back_equal(text):
    config = load(text)
    Path("b.yaml").write_text(to_yaml(config))
    again = load_config("b.yaml")
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_paths_of_a_file_lie_beside_it_and_those_of_the_command_line_beside_the_shell():
    elsewhere, here = Path("elsewhere"), Path.cwd()
    elsewhere.mkdir()
    (elsewhere / "a.yaml").write_text(f"""{BASE}
strategy: s.py:S
client: {{name: c.py:C, loss: l.py:L, generator: {{x_path: p, path: ../p, pathos: p}}}}
data: {{root: gone, dataset: "../d.py:load", options: {{path: d.npz, other_path: /abs, n: 1}}}}
partition: {{file: p.json}}
model: {{name: m.py:M}}
engine: {{name: e.py:E}}
output: out
""")
    for name in ("s.py", "gone", "d.npz"):  # what lies beside the shell is not asked
        Path(name).write_text("")
    config = load_config(elsewhere / "a.yaml")
    there = here / "elsewhere"
    assert config.strategy.name == f"{there}/s.py:S"
    assert config.client.name == f"{there}/c.py:C"
    assert config.client.loss.name == f"{there}/l.py:L"
    assert config.client.options == {
        "generator": {"x_path": f"{there}/p", "path": f"{there}/../p", "pathos": "p"}
    }
    assert config.data.root == f"{there}/gone"
    assert config.data.dataset == f"{there}/../d.py:load"
    assert config.data.options == {"path": f"{there}/d.npz", "other_path": "/abs", "n": 1}
    assert config.partition.file == f"{there}/p.json"
    assert (config.model.name, config.engine.name) == (f"{there}/m.py:M", f"{there}/e.py:E")
    assert config.output == f"{here}/out"
    given = [
        "strategy=s.py:S", "client={name: c.py:C, loss: {name: l.py:L}}", "data.root=gone",
        "data.options.path=d.npz", "data.dataset=d.py:load", "partition.file=p.json",
        "client.generator={x_path: ~/p}", "model.name=m.py:M", "engine={name: e.py:E}",
    ]  # fmt: skip
    config = load_config(elsewhere / "a.yaml", given)
    assert config.strategy.name == f"{here}/s.py:S"
    assert (config.client.name, config.client.loss.name) == (f"{here}/c.py:C", f"{here}/l.py:L")
    assert config.client.options == {"generator": {"x_path": f"{Path.home()}/p"}}
    assert (config.data.root, config.data.dataset) == (f"{here}/gone", f"{here}/d.py:load")
    assert config.data.options["path"] == f"{here}/d.npz"
    assert config.partition.file == f"{here}/p.json"
    assert (config.model.name, config.engine.name) == (f"{here}/m.py:M", f"{here}/e.py:E")


@pytest.mark.parametrize(
    "override",
    ["name=b", "output=o", "engine.name=serial", "checkpoint.every=3", "data.root=/data"],
)
def test_hash_ignores_what_cannot_change_a_result(override):
    assert config_hash(load(BASE, override)) == config_hash(load(BASE))


@pytest.mark.parametrize(
    "override",
    ["seed=2", "rounds=4", "strategy.mu=1", "local.lr=0.2", "rng_salt=1", "data.options.a=1"],
)
def test_hash_follows_what_can(override):
    assert config_hash(load(BASE, override)) != config_hash(load(BASE))


def test_hash_ignores_spelling():
    assert config_hash(load(f"{BASE}local: {{lr: 1}}\nstrategy: {{b: 1, a: 2, name: x}}")) == (
        config_hash(load(f"strategy: {{name: x, a: 2, b: 1}}\n{BASE}local: {{lr: 1.0}}"))
    )


def test_hash_follows_a_users_file_by_content_not_path():
    Path("s.py").write_text("x = 1")
    Path("t.py").write_text("x = 1")
    first = load(f"{BASE}strategy: s.py:S")
    before = config_hash(first)
    assert config_hash(load(f"{BASE}strategy: t.py:S")) == before
    assert config_hash(load(f"{BASE}strategy: t.py:T")) != before
    Path("s.py").write_text("x = 2")
    assert config_hash(first) != before


def test_configuration_is_frozen_and_python_can_make_one():
    config = Config(name="a", rounds=1, strategy=PluginConfig(name="x", options={"mu": 1}))
    assert Config.model_validate(config.model_dump()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.rounds = 2


def test_partition_file_leaves_the_number_of_clients_to_the_file():
    assert load(f"{BASE}partition: {{file: p.json}}\nclients_per_round: 50").clients_per_round == 50


def test_overrides_can_be_wrong_and_say_so():
    with pytest.raises(FedltError, match="expected key=value"):
        load(BASE, "rounds")


def test_every_name_of_the_face_is_there():
    assert all(hasattr(fedlt.config, name) for name in fedlt.config.__all__)
    assert not hasattr(fedlt.config, "Confg")
