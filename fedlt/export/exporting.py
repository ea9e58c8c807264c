"""Write a scored model to a file, with a JSON beside it, and read the file back."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.errors import FedltError, nearest, writing
from fedlt.export.opening import scored_model
from fedlt.machine.durable import replace_synced, sha256
from fedlt.runs.files import write_json

if TYPE_CHECKING:
    from torch import nn

    from fedlt.export.scored_model import ScoredModel

FORMATS = ("safetensors", "pt2", "onnx")


@dataclass(frozen=True)
class Exported:
    """Files of an export."""

    path: Path
    beside: Path  # the JSON
    info: dict[str, Any]  # its content


def export_run(
    path: str | Path,
    *,
    client: int | None = None,
    head: str | None = None,
    format: str | None = None,
    output: str | Path,
    overwrite: bool = False,
) -> Exported:
    """Write a model of a finished run to ``output``, and facts about it to ``output.json``.

    Both files are written whole or not at all. The arguments are those of
    :func:`fedlt.export.opening.scored_model`, and:

    Args:
        path: The run directory, or a folder that holds one seed.
        client: The client whose personal model is exported; None: the generic model.
        head: Name of the head; the primary head by default.
        format: ``safetensors``, ``pt2`` or ``onnx``; by default what the name of the file ends in.
        output: The file.
        overwrite: True to replace files that are there.

    Raises:
        FedltError: If the model cannot be had or written.
    """
    file = Path(output)
    kind = _format_of(file, format)
    beside = file.with_name(f"{file.name}.json")
    for one in (file, beside):
        if one.exists() and (not overwrite or one.is_dir()):
            raise FedltError(f"{one} exists; --overwrite replaces it")
    if not file.parent.is_dir():
        raise FedltError(f"{file.parent} is no folder; make it first")
    model = scored_model(path, client=client, head=head)
    data = _to_bytes(model, kind)
    info = {**model.info, "format": kind, "file": file.name, "sha256": sha256(data)}
    with writing(file):
        replace_synced(file, data)
    with writing(beside):
        write_json(beside, info)
    return Exported(file, beside, info)


def _format_of(file: Path, given: str | None) -> str:
    """Return the format of a file.

    Raises:
        FedltError: If it is unknown, or the file's name says another.
    """
    if given is not None and given not in FORMATS:
        raise FedltError(f"--format: unknown {given!r}{nearest(given, FORMATS)}")
    ending = file.suffix.removeprefix(".")
    if ending not in FORMATS:
        wanted = given or "safetensors"
        raise FedltError(f"{file}: the name must end in .{wanted}{nearest(ending, FORMATS)}")
    if given is not None and ending != given:
        raise FedltError(f"{file}: the name says {ending}, --format says {given}")
    return ending


def _to_bytes(model: ScoredModel, kind: str) -> bytes:
    """Return the content of a file of a format."""
    from fedlt.export.onnx_file import onnx_bytes
    from fedlt.export.program import program_of, trace
    from fedlt.export.pt2_file import pt2_bytes
    from fedlt.export.safetensors_file import safetensors_bytes

    exported = trace(model)
    if kind == "onnx":
        return onnx_bytes(exported, model.info)
    program, tensors = program_of(exported, model.info)
    if kind == "pt2":
        return pt2_bytes(exported, program)
    return safetensors_bytes(program, tensors)


def load_model(path: str | Path) -> nn.Module:
    """Return the model of a file that ``fedlt export`` has written.

    Nothing of the file is executed: it names operators of PyTorch from a fixed list, and tensors.

    Args:
        path: A file that ends in ``.safetensors``, ``.pt2`` or ``.onnx``; the run is not needed.

    Returns:
        A module that maps images (B, Ch, H, W), as the data set holds them, to logits (B, C). Its
        attribute ``info`` has the class names and more, see `docs/export.md`.

    Raises:
        FedltError: If the file cannot be read, is damaged, or is no exported model.
    """
    from safetensors import SafetensorError

    from fedlt.export.onnx_file import OnnxModel
    from fedlt.export.program_model import ProgramModel
    from fedlt.export.pt2_file import read_pt2
    from fedlt.export.safetensors_file import read_safetensors

    file = Path(path)
    kind = file.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise FedltError(f"{file} is no exported model: the name ends in none of {_endings()}")
    try:
        if kind == "onnx":
            return OnnxModel(file)
        read = read_pt2 if kind == "pt2" else read_safetensors
        return ProgramModel(*read(file))
    except FedltError as error:
        raise FedltError(f"{file} cannot be loaded: {error}") from error
    except FileNotFoundError as error:
        raise FedltError(f"no file {str(file)!r}") from error
    except OSError as error:
        raise FedltError(f"{file} cannot be loaded: {error.strerror or error}") from error
    except (SafetensorError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise FedltError(f"{file} cannot be loaded: it is damaged") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else "it is damaged"
        raise FedltError(f"{file} cannot be loaded: {why}") from error


def _endings() -> str:
    return ", ".join(f".{one}" for one in FORMATS)
