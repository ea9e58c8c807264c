"""Files of safetensors: the tensors under their names, and the program as metadata.

``safetensors.torch.load_file(FILE)`` reads the tensors without fedlt, as a plain state dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
from torch import Tensor

from fedlt.export.program import Program
from fedlt.machine.durable import pack_tensors

_PROGRAM = "fedlt"


def safetensors_bytes(program: Program, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a file."""
    return pack_tensors(tensors, {"format": "pt", _PROGRAM: program.to_text()})


def read_safetensors(path: Path) -> tuple[Program, dict[str, Tensor]]:
    """Return the program and the tensors of a file.

    Raises:
        ValueError: If the file was not written by fedlt.
        safetensors.SafetensorError: If the file is damaged.
        OSError: If the file cannot be read.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_PROGRAM)
        if text is None:
            raise ValueError(
                "fedlt has not written it; safetensors.torch.load_file reads such files"
            )
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    return Program.from_text(text), tensors
