"""The layers of the source tree, read off its files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fedlt", "strategies", "clients")
FILES = {
    str(path.relative_to(ROOT)): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
LAYERS = (  # from below: a file imports from its own folder and from lines above its own
    "errors rng progress losses",
    "machine",
    "update",
    "config optim",
    "data",
    "models evaluation privacy",
    "client runs",
    "strategy",
    "federation",
    "worker",
    "flower",
    "engines methods",
    "generators",
    "strategies clients simulate",
    "apps comparing realigning check export",
    "report",
    "api",
    "cli",
    "__main__",
)
RANK = {name: number for number, line in enumerate(LAYERS) for name in line.split()}
ENGINES = [name for name in FILES if name.startswith("fedlt/engines/")]


def imports(tree: ast.AST, *, nested: bool = True) -> set[str]:
    """Return the modules that a tree imports; without ``nested``, on import only."""
    found = set()
    for node in walk(tree, nested=nested):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found.add(node.module or "")
    return found


def walk(tree, *, nested):
    if nested:
        yield from ast.walk(tree)
        return
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from walk(node, nested=False)


def package(module: str) -> str:
    return module.partition(".")[0]


def test_the_tree_was_found():
    assert {"fedlt/simulate.py", "strategies/fedavg.py", "clients/__init__.py"} <= set(FILES)
    assert len(ENGINES) >= 3
    everything = {module for tree in TREES.values() for module in imports(tree)}
    assert "flwr.app" in everything
    assert "fedlt.strategy" in everything


def folder(module: str) -> str:
    """Return the entry of :data:`LAYERS` that a module belongs to."""
    parts = module.split(".")
    return parts[1] if parts[0] == "fedlt" and len(parts) > 1 else parts[0]


def module_of(name: str) -> str:
    return name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def imported_files(name: str) -> set[str]:
    """Return the modules of the three packages that a file imports, for type checking too."""
    known = {module_of(other) for other in FILES}
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= ({str(node.module)} | names) & known
    return found - {module_of(name)}


def test_every_folder_has_its_layer():
    assert {folder(module_of(name)) for name in FILES} - {"fedlt"} == set(RANK)


def test_imports_go_down():
    """A file imports from its own folder and from layers below it: so folders have no circle."""
    below = [name for name in FILES if name != "fedlt/__init__.py"]  # it hands names on
    edges = [(name, module) for name in below for module in imported_files(name)]
    across = [(n, m) for n, m in edges if folder(module_of(n)) != folder(m) and m != "fedlt"]
    offenders = [
        (name, module)
        for name, module in across
        if RANK[folder(module_of(name))] <= RANK[folder(module)]
        and not (looks_names_up(name) and package(module) in PACKAGES[1:])
    ]
    assert len(across) > 500
    assert not offenders


def test_files_import_in_no_circle():
    left = {module_of(name): imported_files(name) for name in FILES}
    while free := [module for module, needed in left.items() if not needed & set(left)]:
        for module in free:
            del left[module]
    assert not left, "these files import each other in a circle, or import such files"


def test_the_top_of_the_package_stays_small():
    entries = {path.name for path in (ROOT / "fedlt").iterdir()} - {"__pycache__", "py.typed"}
    entries -= {"__init__.py", "__main__.py"}
    assert len(entries) <= 30
    assert len([name for name in entries if name.endswith(".py")]) <= 10


def test_a_module_has_a_name_of_its_own():
    """Except a command's file, which is called as what it does."""
    stems = [Path(n).stem for n in FILES if n.startswith("fedlt/") and "fedlt/cli/" not in n]
    doubled = {stem for stem in stems if stem != "__init__" and stems.count(stem) > 1}
    assert not doubled


def test_a_class_has_a_name_of_its_own():
    names = [
        node.name
        for name, tree in TREES.items()
        if name.startswith("fedlt/")
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    ]
    assert not {name for name in names if names.count(name) > 1}


def test_core_knows_no_algorithm():
    """fedlt imports neither strategies nor clients; the configuration and CLI look names up."""
    offenders = [
        name
        for name in FILES
        if name.startswith("fedlt/")
        and {
            package(module)
            for module in imports(TREES[name], nested=not looks_names_up(name))
        } & {*PACKAGES[1:]}
    ]  # fmt: skip
    assert not offenders


def looks_names_up(name: str) -> bool:
    return name == "fedlt/methods/lookup.py" or name.startswith("fedlt/cli/")


def test_flower_is_touched_in_one_place():
    def is_allowed(name):
        return name.startswith(("fedlt/flower/", "fedlt/engines/", "fedlt/apps/")) or name in (
            "fedlt/simulate.py",
            "fedlt/methods/lookup.py",  # inside a function: is this class a Flower strategy?
            "fedlt/privacy/accounting.py",  # inside a function: Flower's accountant
        )

    assert not [n for n in FILES if "flwr" in packages(n) and not is_allowed(n)]
    for name in ("fedlt/methods/lookup.py", "fedlt/privacy/accounting.py"):
        assert "flwr" not in packages(name, nested=False)


def packages(name: str, *, nested: bool = True) -> set[str]:
    return {package(module) for module in imports(TREES[name], nested=nested)}


def test_ray_is_touched_by_its_engine_only():
    assert not [n for n in FILES if "ray" in packages(n) and not n.startswith("fedlt/engines/ray")]


def test_engines_name_no_algorithm():
    """An engine treats every method alike: no text in it has a method's name, no code a class's."""
    from clients import CLIENTS
    from strategies import STRATEGIES

    classes = {cls.__name__ for cls in [*STRATEGIES.values(), *CLIENTS.values()]}
    offenders = [
        f"{name}:{node.lineno}: {word}"
        for name in ENGINES
        for node in ast.walk(TREES[name])
        for word in words_of(node) & {*classes, *STRATEGIES, *CLIENTS}
        if word in classes or isinstance(node, ast.Constant)  # a variable may be called `mixup`
    ]
    hint = "read one of its traits (StrategyTraits, PluginTraits), or call a verb of its contract"
    assert not offenders, f"an engine must not know a method by name; {hint}: {offenders}"


def words_of(node: ast.AST) -> set[str]:
    """Return the words of a text in the code, or a name in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return set(re.findall(r"\w+", node.value))
    return {getattr(node, field, None) or "" for field in ("id", "attr", "name")}


def test_strategies_and_plugins_do_not_know_engines_or_flower():
    above = ("fedlt.engines", "fedlt.flower", "fedlt.sim")
    offenders = [
        (name, module)
        for name in FILES
        if not name.startswith("fedlt/")
        for module in imports(TREES[name])
        if module.startswith(above)
    ]
    assert not offenders


def test_files_are_short():
    """400 lines; a strategy or plugin 120: its maths goes to fedlt/losses or fedlt/models."""
    lengths = {n: len(path.read_text(encoding="utf-8").splitlines()) for n, path in FILES.items()}
    assert not {n: size for n, size in lengths.items() if size > limit_of(n)}


def limit_of(name: str) -> int:
    return 400 if name.startswith("fedlt/") else 120


def test_function_bodies_are_short():
    offenders = [
        (name, node.name)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and (node.end_lineno or 0) - node.body[0].lineno + 1 > 60
    ]
    assert not offenders


def test_what_modules_export_exists():
    offenders = {name: wrong for name, tree in TREES.items() if (wrong := unknown_exports(tree))}
    assert not offenders


def unknown_exports(tree: ast.Module) -> set[str]:
    """Return the names in ``__all__`` that a module does not define, or that stand there twice."""
    known, exported = set(), []
    lazy = [one for node in tree.body if isinstance(node, ast.If) for one in node.body]
    for node in [*tree.body, *lazy]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            known.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            known |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            known.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names = {n.id for one in node.targets for n in ast.walk(one) if isinstance(n, ast.Name)}
            known |= names
            if "__all__" in names:
                exported = ast.literal_eval(node.value)
    return set(exported) - known | {name for name in exported if exported.count(name) > 1}


def test_every_module_has_a_docstring():
    assert not [name for name, tree in TREES.items() if not ast.get_docstring(tree)]


def test_tests_have_unique_names_and_no_packages():
    paths = sorted((ROOT / "tests").rglob("*.py"))
    names = [path.name for path in paths if path.name != "conftest.py"]
    assert len(set(names)) == len(names)
    assert "__init__.py" not in names
