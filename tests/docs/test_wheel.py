"""The wheel and the source archive hold what they should, and the wheel works from any folder."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fedlt", "strategies", "clients")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the wheel and the source archive, built as pip builds them."""
    backend = pytest.importorskip("hatchling.build", reason="needs hatchling, of fedlt[dev]")
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        backend.build_wheel(str(folder))
        backend.build_sdist(str(folder))
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs the command line of the unpacked wheel in an empty folder."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    wheel.extractall(site)
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    run.folder, run.site = folder, site
    return run


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {
        f"fedlt/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "experiments").rglob("*")
        if path.is_file()
    }
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert "fedlt/experiments/tables/digits.yaml" in names


def test_the_metadata_say_who_what_and_under_which_licence(wheel):
    (name,) = [one for one in wheel.namelist() if one.endswith(".dist-info/METADATA")]
    about = email.message_from_bytes(wheel.read(name))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (about["Name"], about["Version"]) == ("fedlt", project["version"])
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Author"] == "fedlt contributors"
    assert len(about.get_all("Classifier")) >= 8
    assert set(about.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    licence = wheel.read(name.replace("METADATA", "licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()
    points = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "fedlt = fedlt.cli:main" in points


def test_the_source_archive_holds_tests_pages_and_licence(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for one in ("LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "mkdocs.yml",
                "experiments/quickstart.yaml", "docs/first_run.md", "tests/docs/test_wheel.py",
                "fedlt/simulate.py", "strategies/fedavg.py", "clients/mixup.py"):  # fmt: skip
        assert one in names


def test_the_unpacked_wheel_is_what_runs(installed):
    done = subprocess.run(
        [sys.executable, "-c", "import fedlt, strategies; print(fedlt.__file__)"],
        cwd=installed.folder, env=os.environ | {"PYTHONPATH": str(installed.site)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"{installed.site}/fedlt/__init__.py"


def test_experiments_of_the_wheel_are_listed_copied_and_run(installed):
    listed = installed("fedlt", "list", "experiments").stdout.splitlines()
    assert len(listed) == len(list((ROOT / "experiments").rglob("*.yaml")))
    installed("fedlt", "copy", "quickstart", "mine")
    short = ["rounds=2", "engine.name=serial"]
    installed("fedlt", "run", "mine/quickstart.yaml", "name=copied", *short)
    done = installed("fedlt", "run", "quickstart", *short, "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert run["path"] == str(installed.folder / "runs/quickstart/1")
    installed("fedlt", "compare", "quickstart", "--strategies", "fedavg,fedrod", "--seeds", "1,2",
              "name=two", *short)  # fmt: skip
    installed("fedlt", "report", "runs/two", "--output", "two.html")
    assert (installed.folder / "two.html").stat().st_size > 10_000
    assert "4 finished" in installed("fedlt", "status", "runs/two").stdout
    recipes = installed("fedlt", "list", "recipes").stdout
    assert "fedloge" in recipes


def test_wrong_names_get_one_line(installed):
    for words, line in (
        (("run", "quickstat"), "nearest: 'quickstart'"),
        (("run", "experiments/quickstart.yaml"), "nearest: 'quickstart'"),
        (("reproduce", "fedlog"), "nearest: 'fedloge'"),
        (("copy", "digits"), "nearest: 'tables/digits'"),
    ):
        done = installed("fedlt", *words, code=2)
        assert line in done.stderr
        assert done.stderr.count("\n") == 1
