"""What a public project has: licence, citation, changelog, hooks, workflow, forms, policies."""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
import subprocess
import sys
import tomllib
from datetime import date

import pytest
import yaml
from doc_blocks import BLOCKS, ROOT

import fedlt

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def read(name: str):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_licence_is_the_text_of_apache_2():
    """The digest is that of https://www.apache.org/licenses/LICENSE-2.0.txt."""
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    assert PROJECT["license"] == "Apache-2.0"


def test_the_citation_is_of_this_version():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # required by CFF 1.2.0
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    names = [author["name"] for author in citation["authors"]]
    assert names == [author["name"] for author in PROJECT["authors"]]


def test_the_changelog_has_dates_and_the_groups_of_keep_a_changelog():
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    heads = [line[3:] for line in lines if line.startswith("## ")]
    assert heads[0] == "[Unreleased]"
    days = [re.search(r"\d{4}-\d\d-\d\d", head)[0] for head in heads[1:]]
    assert days == sorted(map(str, map(date.fromisoformat, days)), reverse=True)
    groups = {line[4:] for line in lines if line.startswith("### ")}
    assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_workflow_runs_the_whole_check_on_the_oldest_python():
    workflow = read(".github/workflows/check.yml")
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    (python,) = [s["with"]["python-version"] for s in job["steps"] if "setup-python" in str(s)]
    assert f">={python}" == PROJECT["requires-python"]
    assert {"push", "pull_request"} == set(workflow[True])  # YAML 1.1 reads the key `on` as true


def test_hooks_are_local_and_run_what_the_check_runs():
    repositories = read(".pre-commit-config.yaml")["repos"]
    assert [one["repo"] for one in repositories] == ["local"]
    check = (ROOT / ".ci/run").read_text()
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in repositories[0]["hooks"]]
    assert entries == ["ruff check", "ruff format", "mypy"]
    assert all(re.search(rf"^{entry}\b", check, re.MULTILINE) for entry in entries)


def test_issue_forms_have_what_forms_need():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    names = [form.name for form in forms]
    assert names == ["bug.yml", "config.yml", "method.yml"]
    for form in (read(f".github/ISSUE_TEMPLATE/{n}") for n in names if n != "config.yml"):
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids)
        assert {part["type"] for part in form["body"]} <= {"textarea", "input"}
        assert all(part["attributes"]["label"] for part in form["body"])


def test_the_version_is_that_of_the_package():
    assert fedlt.__version__ == PROJECT["version"]
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        _ = fedlt.version


def test_importing_fedlt_imports_nothing_heavy():
    code = "import sys, fedlt; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "flwr", "ray", "pydantic", "importlib.metadata", "fedlt.config"}
    assert not heavy & set(done.stdout.split())


def public() -> dict[str, list[str]]:
    """Return the names of docs/stability.md by module; none: every name of ``__all__``."""
    table = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", STABILITY, re.MULTILINE)
    return {
        module: re.findall(r"`(\w+)`", names.replace("`__all__`", "")) for module, names in table
    }


STABILITY = (ROOT / "docs/stability.md").read_text()


@pytest.mark.parametrize("module", public())
def test_public_names_exist(module):
    found = importlib.import_module(module)
    assert [name for name in public()[module] or found.__all__ if not hasattr(found, name)] == []


def test_what_pages_and_templates_import_is_public():
    """An engine's page uses modules that are not, and the policy says so."""
    sources = [b.code for b in BLOCKS if b.language in ("python", "diff")]
    sources = [text for text in sources if "fedlt.engines" not in text]
    sources += [path.read_text() for path in (ROOT / "fedlt").rglob("templates/*.py")]
    assert len(sources) > 8
    for text in sources:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fedlt":
                names = public()[node.module] or importlib.import_module(node.module).__all__
                assert {alias.name for alias in node.names} <= set(names), node.module


def test_the_layout_page_has_every_part_of_the_core():
    page = (ROOT / "docs/layout.md").read_text()
    parts = [path.parent.name + "/" for path in (ROOT / "fedlt").glob("*/__init__.py")]
    parts += [path.name for path in (ROOT / "fedlt").glob("[!_]*.py")]
    assert len(parts) > 20
    assert [part for part in parts if f"`{part}`" not in page] == []


LOADERS = {"pickle.load", "pickle.loads", "cloudpickle.loads", "torch.load", "joblib.load"}


def test_nothing_is_unpickled_from_a_file():
    """SECURITY.md says so.

    The conformance kit copies objects of its own through pickle, and processes of one run send
    each other answers through memory that has no name.
    """
    own = [*(ROOT / "fedlt/check").glob("*.py"), ROOT / "fedlt/engines/shared_memory.py"]
    wrong = []
    files = [p for name in ("fedlt", "strategies", "clients") for p in (ROOT / name).rglob("*.py")]
    for path in files:
        for call in [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]:
            name, words = (
                ast.unparse(call.func),
                {k.arg: ast.unparse(k.value) for k in call.keywords},
            )
            unsafe = name == "np.load" and words.get("allow_pickle") != "False"
            tensors_only = name == "torch.load" and words.get("weights_only") == "True"
            if unsafe or (name in LOADERS and path not in own and not tensors_only):
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
    assert len(files) > 100
    assert not wrong
