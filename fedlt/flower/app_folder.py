"""The folder of a Flower app: an experiment as ``flwr run`` takes it, and files for containers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from importlib.metadata import requires, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fedlt.config.identity import user_code
from fedlt.config.import_closure import closure
from fedlt.config.paths import data_paths, is_path
from fedlt.config.yaml12 import dump
from fedlt.errors import FedltError

if TYPE_CHECKING:
    from fedlt.config import Config

PORT = 8000  # of a SuperLink
FIRST_NODE_PORT = 9100  # each node on a machine needs a port of its own
CONNECTION = "fedlt"  # name of the connection in Flower's config.toml
_LONGEST = 32  # characters of a folder's name
_FOLDER = re.compile(rf"[A-Za-z][A-Za-z0-9-]{{0,{_LONGEST - 1}}}")
MODULES = ("server_app", "client_app")

_MODULE = '''"""The {half} of the experiment in experiment.yaml, as Flower loads it."""

from fedlt.apps import make_{half}

app = make_{half}(__file__)
'''
_PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "{description}"
license = {{file = "LICENSE"}}
dependencies = ["{flower}"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "me"
fab-format-version = 1
flwr-version-target = "{target}"
fab-include = [{include}]

[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"

# flwr run replaces these: -c 'set="rounds=3 local.lr=0.1" resume=true'
[tool.flwr.app.config]
experiment = "experiment.yaml"
set = ""
output = ""
resume = false
"""
_LICENCE = "This experiment has no licence yet: put its text here before you publish the app.\n"
_DOCKERFILE = """# One image for the SuperLink and the nodes. Put fedlt's wheel into wheels/ first:
#   pip wheel --no-deps --wheel-dir wheels FOLDER_OF_FEDLT
FROM python:3.11-slim
COPY wheels/ /wheels/
RUN pip install --no-cache-dir /wheels/*.whl
ENV FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 OMP_NUM_THREADS=1
WORKDIR /fedlt
"""


def app_files(config: Config) -> dict[str, bytes]:
    """Return the files of the app folder of an experiment, by name.

    Args:
        config: The run, with absolute paths.

    Raises:
        FedltError: If the configuration means several runs, or a Python file of the user cannot be
            put into the folder.
    """
    if config.seeds is not None:
        raise FedltError("one run is one seed: give seed, not seeds")
    code, names = _code(config)
    tree = _portable(config, names)
    files = {
        "experiment.yaml": dump(tree).encode(),
        "LICENSE": _LICENCE.encode(),
        "Dockerfile": _DOCKERFILE.encode(),
        "compose.yaml": _compose(config).encode(),
        **{f"{half}.py": _MODULE.format(half=half).encode() for half in MODULES},
        **code,
    }
    listed = ["LICENSE", "experiment.yaml", *(name for name in files if name.endswith(".py"))]
    name = re.sub(r"[^a-z0-9]+", "-", config.name.lower()).strip("-") or "experiment"
    project = _PROJECT.format(
        name=name,
        description=f"{config.strategy.name} of fedlt: {config.name}",
        flower=_flower(),
        target=version("flwr"),
        include=", ".join(f'"{one}"' for one in listed),
    )
    return {"pyproject.toml": project.encode(), **files}


def folder_name(name: str) -> str:
    """Return an experiment's name as Flower allows it for the folder of an app."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return (plain if plain[:1].isalpha() else f"app-{plain}")[:_LONGEST].strip("-")


def check_folder_name(name: str) -> None:
    """Refuse a folder that Flower would not take as an app's.

    Raises:
        FedltError: With the rule, and a name that would do.
    """
    if not _FOLDER.fullmatch(name):
        raise FedltError(
            f"DIR: Flower takes no app folder named {name!r}: letters, digits and hyphens, at most "
            f"{_LONGEST}, a letter first; as {folder_name(name)!r}"
        )


def next_commands(config: Config, folder: Path) -> list[str]:
    """Return the commands that start the link, the nodes, and the run, on one machine."""
    clients = config.partition.num_clients
    own = ' data="FOLDER_OF_CLIENT_$k"' if config.deployment.data == "nodes" else ""
    node = (
        f"flower-supernode --insecure --superlink 127.0.0.1:{PORT} --port $(({FIRST_NODE_PORT}+k)) "
        f'--node-config "partition-id=$k{_quoted(own)}"'
    )
    output = f'output="{Path(config.output).absolute()}"'
    return [
        "flower-superlink --insecure --disable-runtime-dependency-installation",
        f"for k in $(seq 0 {clients - 1}); do {node} & done",
        f"flwr run {shlex.quote(str(folder))} {CONNECTION} --stream -c {shlex.quote(output)}",
    ]


def connection() -> str:
    """Return the lines of Flower's ``config.toml`` that name the SuperLink of this machine."""
    return f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{PORT}"\ninsecure = true\n'


def _flower() -> str:
    """Return the versions of Flower that fedlt itself needs, as a requirement."""
    lines = requires("fedlt") or []
    name = "flwr[simulation]"
    return next(line.replace(name, "flwr") for line in lines if line.startswith(name))


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')


def _code(config: Config) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the user's Python files by name in the folder, and the new place of each.

    Raises:
        FedltError: If a file lies outside the folder of the file that imports it, or two files have
            one name.
    """
    files: dict[str, bytes] = {}
    places: dict[str, str] = {}
    for key, spec in user_code(config).items():
        source = spec.rpartition(":")[0]
        if not source.endswith(".py") or key == "engine.name":
            continue
        places[source] = Path(source).name
        for name, path in closure(Path(source)).items():
            if name.startswith(".."):
                raise FedltError(
                    f"{key}: {path} is imported and lies outside the folder of {source}; put both "
                    "into one folder"
                )
            content = path.read_bytes()
            taken = {*(f"{half}.py" for half in MODULES)}
            if name in taken or files.get(name, content) != content:
                raise FedltError(f"{key}: the app folder has another {name} already; rename it")
            files[str(PurePosixPath(name))] = content
    return files, places


def _portable(config: Config, places: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration for the folder: own code beside it, runs below the server's folder.

    Paths of data are names in the node's folder where images stay at the nodes; else they stay as
    they are, the same on every machine.
    """
    tree = config.model_dump(mode="json")
    tree.pop("seeds")
    tree["output"] = "runs"

    def moved(value: Any) -> Any:  # noqa: ANN401 (plain data)
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [moved(item) for item in value]
        source, mark, name = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        return f"{places[source]}:{name}" if mark and source in places else value

    tree = dict(moved(tree))
    if config.deployment.data == "nodes":
        options = tree["data"]["options"]
        known = {key.rpartition(".")[2] for key in data_paths(config.data.dataset)}
        for key in options:
            if key in known or is_path(f"data.options.{key}"):
                options[key] = Path(str(options[key])).name
    return tree


def _compose(config: Config) -> str:
    """Return a compose file: the link, and a node for each client with its folder mounted."""
    services: dict[str, Any] = {
        "superlink": {
            "build": ".",
            "command": "flower-superlink --insecure --host 0.0.0.0",
            "ports": [f"{PORT}:{PORT}"],
            "volumes": ["./runs:/fedlt/runs"],
        }
    }
    own = config.deployment.data == "nodes"
    for cid in range(config.partition.num_clients):
        settings = f'partition-id={cid} state-dir="/state"' + (' data="/data"' if own else "")
        services[f"node-{cid}"] = {
            "build": ".",
            "command": [
                "flower-supernode", "--insecure", "--superlink", f"superlink:{PORT}",
                "--node-config", settings,
            ],
            "depends_on": ["superlink"],
            "volumes": [f"./state/{cid}:/state", *([f"./data/{cid}:/data:ro"] if own else [])],
        }  # fmt: skip
    return dump({"services": services})
