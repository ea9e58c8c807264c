"""``fedlt export``: write a model of a finished run to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedlt.cli.completion import complete_run
from fedlt.cli.screen import screen


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory, or its folder with one seed.", autocompletion=complete_run
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The file; a JSON is written beside."),
    ],
    client: Annotated[
        int | None, typer.Option(help="Export this client's personal model, not the generic one.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="A head; the primary head by default.")] = None,
    format: Annotated[
        str | None,
        typer.Option(help="safetensors, pt2 or onnx; by default what FILE ends in."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Write the scored model of a finished run to a file: images in, logits out.

    fedlt.load_model reads the file; torch.export.load reads pt2, and onnxruntime reads onnx.
    """
    from fedlt.export import export_run

    done = export_run(
        run, client=client, head=head, format=format, output=output, overwrite=overwrite
    )
    info, score = done.info, done.info["score"]
    what = "generic model" if client is None else f"model of client {client}"
    if client is not None and info["is_generic"]:
        what += " (the generic model: the client never took part)"
    accuracy = score["accuracy"]
    images = "all test images" if client is None else f"its test view ({score['view']})"
    scored = "" if accuracy is None else f", {100 * accuracy:.1f} % on {images}"
    screen().tell(
        f"exported the {what} with its head {info['head']!r}{scored}", done.path, done.beside
    )
    screen().document({"model": what, "files": [done.path, done.beside], "info": info})
