"""Every experiment file can be run: it is read, resolved, and its model and server are built."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from fedlt.comparing.comparison import read_comparison
from fedlt.comparing.recipes import read_recipe
from fedlt.comparing.sweep import make_searches
from fedlt.config import config_hash, load_config
from fedlt.data import DATASETS
from fedlt.federation import prepare_parties
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.models.etf import sparse_etf

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "experiments"
EVERY = sorted(FOLDER.rglob("*.yaml"))
RECIPES = [path for path in EVERY if "\nreproduce:" in path.read_text(encoding="utf-8")]
TABLES = [
    path for path in EVERY
    if path not in RECIPES and "\ncompare:" in path.read_text(encoding="utf-8")
]  # fmt: skip
FILES = [path for path in EVERY if path not in (*TABLES, *RECIPES)]
# What stands in for images that are not on this disk: (channels, side, classes), per class.
SHAPES = {
    "fashion_mnist": (1, 28, 10),
    "mnist": (1, 28, 10),
    "cifar10": (3, 32, 10),
    "cifar100": (3, 32, 100),
    "cinic10": (3, 32, 10),
    "tiny_imagenet": (3, 64, 200),
}
FURTHER = {  # recipe -> its scales beside full and cpu, and the setting that each is made for
    "fedloge": {"resnet8": "b", "bfloat16": "b"},
    "mcmahan_2nn": {"fashion": "iid-0.1"},
}
each = pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(FOLDER)) for p in FILES])
# Files whose images only the user has: tests/test_image_recipes.py runs them on small ones.
FROM_FILES = re.compile(r"dataset: (folder|list|csv|npz)")
OTHERS = [path for path in FILES if not FROM_FILES.search(path.read_text(encoding="utf-8"))]
each_other = pytest.mark.parametrize("path", OTHERS, ids=[path.name for path in OTHERS])
each_table = pytest.mark.parametrize("path", TABLES, ids=[path.name for path in TABLES])


# A generator that learns next to nothing.
BRIEF = {"rounds": 1, "local_steps": 1, "per_image": 1, "times": 5, "sample_steps": 2}


def quickly_generated(config):
    """Return the configuration with a generator, if it has one, that is done at once."""
    generator = config.client.options.get("generator")
    if generator is None:
        return config
    pytest.importorskip("diffusers", reason="needs fedlt[diffusion]")
    options = {**config.client.options, "generator": {**generator, **BRIEF}, "min_score": 0.0}
    client = config.client.model_copy(update={"options": options})
    return config.model_copy(update={"client": client})


def small(config):
    """Return the configuration of one run with as many images as its partition needs."""
    config = quickly_generated(config.runs()[0])
    if config.data.dataset not in SHAPES:
        return config
    channels, side, classes = SHAPES[config.data.dataset]
    needed = config.partition.num_clients * max(config.partition.min_samples, 1)
    per_class = int(2 * needed * config.data.imbalance_factor**0.5 / classes) + 20
    per_class = max(per_class, int(config.data.imbalance_factor) + 1)
    options = {
        "num_classes": classes,
        "image_size": side,
        "channels": channels,
        "train_per_class": per_class,
        "test_per_class": 1,
    }
    update = {"dataset": "synthetic", "options": options, "root": None}
    return config.model_copy(update={"data": config.data.model_copy(update=update)})


def test_there_are_experiments():
    assert FILES


@each
def test_it_loads_and_its_names_resolve(path):
    config = load_config(path)
    assert config.data.dataset in DATASETS or ":" in config.data.dataset
    resolve_strategy(config)
    resolve_client(config)


@each_other
def test_its_model_and_server_can_be_built(path, quick_etf):
    """With synthetic images of the same shape; SSE-C is made with few steps only."""
    if "deit_lt" in path.name:
        pytest.importorskip("timm")
    check_build(small(load_config(path)))


@pytest.fixture
def quick_etf(monkeypatch):
    from strategies import fedloge

    def quick(num_features, num_classes, **options):
        return sparse_etf(num_features, num_classes, **{**options, "sparsity": 0.0})

    monkeypatch.setattr(fedloge, "sparse_etf", quick)


def check_build(config):
    """Build the model and the server of one run."""
    federation = prepare_parties(config, resolve_strategy(config), resolve_client(config))
    server = make_server_half(federation.view)
    assert federation.view.num_clients == config.partition.num_clients
    assert set(server.state.broadcast) >= set(server.model.names("shared"))
    cohort = server.sample(1, list(range(federation.view.num_clients)))
    if config.privacy is None:  # else each client is drawn by itself
        assert len(cohort) == federation.view.cohort_size


def kinds(recipe, scale, only=()):
    """Return one configuration of each model, data set and method of a recipe at a scale."""
    found = {}
    for setting in recipe.grid(scale, only):
        for row in recipe.comparison.rows:
            given = setting.overrides_of(row.label)
            (config, *_) = recipe.comparison.configs(row, *given, folder=setting.folder)
            strategy, plugin = resolve_strategy(config), resolve_client(config)
            assert strategy.refuses(plugin) is None
            found.setdefault(
                (config.data.dataset, config.model.model_dump_json(), row.label), config
            )
    return list(found.values())


@pytest.mark.parametrize("scale", ["full", "cpu"])
@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_row_of_a_recipe_can_be_built_at_every_scale(path, scale, quick_etf):
    """All settings resolve; model and server are built once for each model and method."""
    recipe = read_recipe(path)
    assert set(recipe.scales) - set(FURTHER.get(path.stem, {})) == {"full", "cpu"}
    for config in kinds(recipe, scale):
        check_build(small(config))


@pytest.mark.parametrize(
    ("name", "scale"), [(name, scale) for name, own in FURTHER.items() for scale in own]
)
def test_further_scales_can_be_built_in_their_setting(name, scale, quick_etf):
    recipe = read_recipe(FOLDER / f"paper/{name}.yaml")
    for config in kinds(recipe, scale, [FURTHER[name][scale]]):
        check_build(small(config))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_says_its_figures_or_that_it_has_none(path):
    recipe = read_recipe(path)
    head = path.read_text(encoding="utf-8").partition("\nname:")[0]
    assert "Scale cpu" in head
    assert "says nothing" in head or "say nothing" in head
    assert recipe.figures or "none of their figures" in " ".join(head.replace("# ", "").split())
    assert all(one.tolerance > 0 and one.source for one in recipe.figures)


@each_table
def test_every_row_and_every_trial_of_a_comparison_can_be_built(path):
    """Rows and trials are distinct runs of methods that compose with the rest of the file."""
    comparison = read_comparison(path)
    is_searched = any(row.search for row in comparison.rows)
    rows = {row.label: row for row in comparison.rows}
    trials = []
    for label, search in make_searches(comparison, None).items() if is_searched else ():
        for values in search.ask():
            given = [f"{key}={json.dumps(value)}" for key, value in values]
            trials.append((label, comparison.configs(rows[label], *given)[0]))
    configs = [one for row in comparison.rows for one in comparison.configs(row)]
    for config in [*configs, *(config for _, config in trials)]:
        strategy, plugin = resolve_strategy(config), resolve_client(config)
        assert strategy.refuses(plugin) is None
    for own in (configs, [config for _, config in trials]):
        assert len({config_hash(config) for config in own}) == len(own)
    numbers = Counter(label for label, _ in trials)
    assert len(set(numbers.values())) == is_searched  # the same budget for every row


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_its_head_says_cost_command_and_what_to_expect(path):
    """The comment lines above the first key, as in `# x.yaml: 10 min on 2 cores; fedlt run ...`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = []
    for line in lines:
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("# "))
    head = " ".join(comments)
    assert re.search(r"\d+ *(s|sec|seconds?|min|minutes?|h|hours?)\b", head), "no cost"
    verb = "reproduce" if path in RECIPES else "compare" if path in TABLES else "run"
    assert f"fedlt {verb} {path.relative_to(ROOT)}" in head, "no command"
    assert re.search(r"expect", head, re.IGNORECASE), "no expected result"
