"""``fedlt app``: write an experiment as the folder of a Flower app."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fedlt.cli.arguments import FileArgument
from fedlt.cli.screen import screen
from fedlt.errors import FedltError


def make_app(
    file: FileArgument,
    rest: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] [KEY=VALUE]...",
            help="The folder to write, by default the experiment's name; values to use instead.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Build the app's bundle, and say its size.")
    ] = False,
) -> None:
    """Write an experiment as a Flower app, for flwr run and deployments.

    Nothing is overwritten. The next commands are printed; docs/deploy.md goes through them.
    """
    from fedlt.cli.destinations import write_new
    from fedlt.config import load_config
    from fedlt.config.experiments import find_experiment
    from fedlt.federation.nodes import check_nodes
    from fedlt.flower.app_folder import (
        app_files,
        check_folder_name,
        connection,
        folder_name,
        next_commands,
    )
    from fedlt.methods.lookup import resolve_client, resolve_strategy

    given = rest or []
    folders = [word for word in given if "=" not in word]
    if len(folders) > 1:
        raise FedltError(f"{folders[1]!r} is no key=value, and the folder is {folders[0]!r}")
    config = load_config(find_experiment(file), [word for word in given if "=" in word])
    check_nodes(config, resolve_strategy(config), resolve_client(config))
    folder = Path(folders[0]) if folders else Path(folder_name(config.name))
    check_folder_name(folder.absolute().name)
    files = app_files(config)
    write_new({folder / name: content for name, content in files.items()})
    following = next_commands(config, folder)
    shown = screen()
    shown.tell(*(folder / name for name in files))
    if check:
        shown.tell(_built(folder))
    shown.tell(
        "", "Flower's config.toml ($FLWR_HOME, or ~/.flwr) needs once:", "", connection(),
        "next, each in a terminal of its own:", *following,
    )  # fmt: skip
    shown.document({"files": [str(folder / name) for name in files], "next": following})


def _built(folder: Path) -> str:
    """Return a line about the bundle that Flower builds of a folder.

    Raises:
        FedltError: If Flower refuses the folder.
    """
    flwr = Path(sys.executable).with_name("flwr")
    with tempfile.TemporaryDirectory(prefix="fedlt-app-") as place:
        done = subprocess.run(
            [str(flwr), "build", "--app", str(folder.absolute())],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        built = list(Path(place).glob("*.fab"))
        if done.returncode or not built:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise FedltError(f"flwr build refuses {folder}: {' '.join(words[-3:])}")
        return f"{built[0].name}: {built[0].stat().st_size:,} bytes"
