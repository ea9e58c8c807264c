"""Files of ONNX, which onnxruntime and other engines run without torch; needs the extra ``onnx``.

onnxruntime computes with kernels of its own, so the last bits of the logits differ from torch's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from fedlt.errors import FedltError, one_line
from fedlt.export.program_model import check_images

_INFO, _DIGEST = "fedlt", "fedlt.sha256"  # keys of the metadata


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    """Turn a missing package into one line that names the extra."""
    try:
        yield
    except ImportError as error:
        raise FedltError(
            f"onnx files need more packages ({error}): pip install 'fedlt[onnx]'"
        ) from error


def onnx_bytes(exported: ExportedProgram, info: Mapping[str, Any]) -> bytes:
    """Return the content of a file.

    Raises:
        FedltError: If the extra is missing, or the model has an operator that ONNX lacks.
    """
    with _extra():
        import onnx
        import onnxruntime  # noqa: F401 (whoever writes a file wants to try it)
        import onnxscript  # noqa: F401
    quiet = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(quiet):
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                exported, (), dynamo=True, input_names=["images"], output_names=["logits"]
            )
    except Exception as error:
        raise FedltError(f"this model cannot be exported as onnx: {one_line(error)}") from error
    assert made is not None
    proto: onnx.ModelProto = made.model_proto
    _name_batch(proto.graph)
    for node in proto.graph.node:
        del node.metadata_props[:]  # traces of the source code
    digest = _digest(proto)
    onnx.helper.set_model_props(proto, {_INFO: json.dumps(dict(info)), _DIGEST: digest})
    return bytes(proto.SerializeToString())


def _name_batch(graph: Any) -> None:  # noqa: ANN401 (onnx.GraphProto)
    """Call the number of images ``batch`` in the shapes of a graph."""
    first = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == first:
                dim.dim_param = "batch"


def _digest(proto: Any) -> str:  # noqa: ANN401 (onnx.ModelProto)
    return hashlib.sha256(proto.graph.SerializeToString(deterministic=True)).hexdigest()


class OnnxModel(nn.Module):
    """Model of an ONNX file, run by onnxruntime on the CPU: images in, logits (B, C) out.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is damaged, or not written by fedlt.
        FedltError: If the extra is missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        with _extra():
            import onnx
            import onnxruntime
        data = path.read_bytes()
        try:
            proto = onnx.load_model_from_string(data)
        except Exception as error:  # protobuf has its own error types
            raise ValueError("it is damaged") from error
        known = {entry.key: entry.value for entry in proto.metadata_props}
        if _INFO not in known:
            raise ValueError("fedlt has not written it; onnxruntime reads such files")
        if known.get(_DIGEST) != _digest(proto):
            raise ValueError("it does not match its checksum")
        self.info: dict[str, Any] = json.loads(known[_INFO])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        try:  # from bytes: data outside the file are not found
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has its own error types
            raise ValueError(one_line(error)) from error

    def forward(self, images: Tensor) -> Tensor:
        """Map images, as the data set holds them, to logits.

        Raises:
            FedltError: If the images have another shape or type than those of the run.
        """
        check_images(self.info, tuple(images.shape), str(images.dtype).removeprefix("torch."))
        (logits,) = self._session.run(None, {"images": images.cpu().numpy()})
        return torch.from_numpy(logits)
