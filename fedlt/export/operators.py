"""Operators that a file of fedlt may name: mathematics on tensors, nothing else.

PyTorch has operators that open files, so a file from a stranger must not choose among all of them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fedlt.errors import FedltError, shortened

# Sizes are computed by these functions of Python.
_ON_NUMBERS: Mapping[str, Callable[..., Any]] = {
    f"operator.{function.__name__}": function
    for function in (
        operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv,
        operator.mod, operator.neg, operator.getitem,
    )
}  # fmt: skip
_NAMES = """
    abs add add_ addcdiv addcmul addmm alias amax amin any arange argmax argmin argsort asin atan
    atan2 avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d all baddbmm batch_norm
    bitwise_and bitwise_not bitwise_or bmm broadcast_to cat ceil celu channel_shuffle chunk clamp
    clamp_ clamp_max clamp_min clone concat constant_pad_nd contiguous conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d convolution cos cosine_similarity cumsum detach detach_
    diagonal div div_ dot dropout dropout_ einsum elu elu_ embedding eq erf exp expand expand_as
    expm1 eye feature_alpha_dropout feature_dropout flatten flip floor floor_divide fmod full
    full_like gather ge gelu glu group_norm gt hardsigmoid hardsigmoid_ hardswish hardswish_
    hardtanh hardtanh_ im2col index index_select inner instance_norm isfinite isinf isnan
    layer_norm le leaky_relu leaky_relu_ lerp lift_fresh_copy linalg_norm linalg_vector_norm linear
    log log10 log1p log2 log_softmax logaddexp logical_and logical_not logical_or logsigmoid
    logsumexp lt mT masked_fill masked_fill_ matmul matrix_H max max_pool1d max_pool2d max_pool3d
    maximum mean min minimum mish mish_ mm movedim mul mul_ mv narrow native_layer_norm ne neg
    neg_ new_full new_ones new_zeros norm numpy_T one_hot ones ones_like outer pad permute
    pixel_shuffle pixel_unshuffle pow prelu prod reciprocal reflection_pad2d relu relu6 relu6_
    relu_ remainder repeat repeat_interleave replication_pad2d reshape rms_norm roll rot90 round
    rsqrt rsub scaled_dot_product_attention select selu selu_ sigmoid sigmoid_ sign silu silu_ sin
    slice softmax softplus sort split split_with_sizes sqrt square squeeze stack std std_mean sub
    sub_ sum swapaxes swapdims sym_size t tan tanh tanh_ tensor_split threshold tile to topk
    transpose tril triu true_divide type_as unbind unflatten unfold unsqueeze upsample_bicubic2d
    upsample_bilinear2d upsample_nearest2d var var_mean vector_norm view view_as where zeros
    zeros_like
"""
_ON_TENSORS = frozenset(_NAMES.split())


def name_of(target: object) -> str:
    """Return the name of an operator in a graph of ``torch.export``.

    Raises:
        FedltError: If a file may not name the operator.
    """
    function = getattr(target, "__name__", "")
    name = str(target) if isinstance(target, torch._ops.OpOverload) else f"operator.{function}"
    find(name)
    return name


def find(name: str) -> Callable[..., Any]:
    """Return the operator of a name, such as ``aten.conv2d.default`` or ``operator.mul``.

    Raises:
        FedltError: If a file may not name it, or this version of PyTorch lacks it.
    """
    if name in _ON_NUMBERS:
        return _ON_NUMBERS[name]
    match = re.fullmatch(r"aten\.(\w+)\.(\w+)", name)
    if match is None or match[1] not in _ON_TENSORS:
        raise FedltError(f"operator {shortened(name)!r} is not one that fedlt reads from a file")
    found: Any = getattr(getattr(torch.ops.aten, match[1], None), match[2], None)
    if not isinstance(found, torch._ops.OpOverload):
        raise FedltError(f"this PyTorch ({torch.__version__}) has no operator {shortened(name)!r}")
    return found
