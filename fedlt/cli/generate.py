"""``fedlt generate``: make the pool of synthetic images that a file's client plugin needs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.arguments import FileArgument, Overrides
from fedlt.cli.screen import screen
from fedlt.errors import FedltError, writing

if TYPE_CHECKING:
    from fedlt.generators.pool import Pool


def generate(
    file: FileArgument,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="PATH", help="Write the pool there, too (npz)."),
    ] = None,
) -> None:
    """Make the synthetic images that a run would make first; trains no classifier.

    The images are kept for later runs with equal settings. A stopped generation is resumed.
    """
    from fedlt.cli.destinations import check_place
    from fedlt.config.experiments import find_experiment
    from fedlt.generators.pool import save_pool
    from fedlt.machine.stopping import stopped_by_terminate

    check_place(output, "--output")
    try:
        with stopped_by_terminate():
            pools = _pools(find_experiment(file), overrides or [])
    except KeyboardInterrupt:
        command = shlex.join(["fedlt", "generate", file, *(overrides or [])])
        typer.echo(f"interrupted; to go on: {command}", err=True)
        raise typer.Exit(130) from None
    if output is not None:
        if len(pools) > 1:
            raise FedltError("--output: the file has several seeds; give seed=1")
        with writing(f"--output: {output}"):
            output.parent.mkdir(parents=True, exist_ok=True)
            save_pool(pools[0], output)
        screen().tell(output)
    screen().document({"files": [output] if output else []})


def _pools(file: Path, overrides: list[str]) -> list[Pool]:
    """Return the image pool of every seed."""
    from fedlt.config import load_config
    from fedlt.data import prepare_data
    from fedlt.engines import check_engine
    from fedlt.federation import Parties
    from fedlt.generators.generator import find_pool_maker
    from fedlt.methods.lookup import resolve_client, resolve_strategy
    from fedlt.progress import make_progress
    from fedlt.worker.worker import prepare_process

    prepare_process()
    found = []
    for config in load_config(file, overrides).runs():
        check_engine(config.engine.name)
        maker = find_pool_maker(resolve_client(config))
        if maker is None:
            raise FedltError(f"client {config.client.label!r} has no pool of synthetic images")
        data = prepare_data(config.data, config.partition, seed=config.seed)
        parties = Parties.of(config, resolve_strategy(config), resolve_client(config), data)
        progress = make_progress(screen().progress(), f"{config.name} seed {config.seed}")
        try:
            found.append(maker(parties.observer.preparation(progress)))
        finally:
            progress.stop()
    return found
