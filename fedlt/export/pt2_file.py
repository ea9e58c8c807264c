"""Files of ``torch.export``: ``torch.export.load(FILE).module()`` reads them without fedlt.

fedlt itself reads the plain bytes in the archive and its own program, since ``torch.export.load``
unpickles and evaluates expressions, which a stranger's file could abuse.
"""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from fedlt.export.program import Program

_PROGRAM = "fedlt.json"
_PLACES = {  # JSON in the archive -> folder of the tensors that it lists
    "data/weights/model_weights_config.json": "data/weights",
    "data/constants/model_constants_config.json": "data/constants",
}


def pt2_bytes(exported: ExportedProgram, program: Program) -> bytes:
    """Return the content of a file."""
    memory = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported, memory, extra_files={_PROGRAM: program.to_text()})
    return memory.getvalue()


def read_pt2(path: Path) -> tuple[Program, dict[str, Tensor]]:
    """Return the program and the tensors of a file.

    Raises:
        ValueError: If the file is damaged, or not written by fedlt.
        OSError: If the file cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if f"extra/{_PROGRAM}" not in names:
            raise ValueError("fedlt has not written it; torch.export.load reads such files")
        text = archive.read(names[f"extra/{_PROGRAM}"]).decode()
        program, tensors = Program.from_text(text), {}
        for config, folder in _PLACES.items():
            for name, entry in json.loads(archive.read(names[config]))["config"].items():
                if name in program.tensors:
                    place = archive.getinfo(names[f"{folder}/{entry['path_name']}"])
                    tensors[name] = _tensor(archive, place, *program.tensors[name])
    return program, tensors


def _tensor(archive: zipfile.ZipFile, place: zipfile.ZipInfo, dtype: str, shape: Any) -> Tensor:  # noqa: ANN401
    """Return the tensor of an entry, whose size must be the one of its type and shape."""
    kind = getattr(torch, dtype)
    if not isinstance(kind, torch.dtype) or place.file_size != math.prod(shape) * kind.itemsize:
        raise ValueError("it is damaged: a tensor has another size")
    data = bytearray(archive.read(place))
    return (
        torch.frombuffer(data, dtype=kind).reshape(shape)
        if data
        else torch.zeros(shape, dtype=kind)
    )
