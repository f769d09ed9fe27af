"""The tensor operators that a reward graph may hold: an allow-list of aten overloads, by name.

Every one is a pure function of its arguments whose output shape follows from the shapes and sizes given. Left out
on purpose: whatever is random, works in place, leaves the device, reads values to find a shape, makes
uninitialised memory (`empty`) or addresses memory by strides (`as_strided`). Which overloads exist differs between
torch's minor versions; a name that this torch does not have is simply not available.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

_DEFAULT = """
    abs acos acosh asin asinh atan atanh ceil cos cosh erf erfc exp exp2 expm1 floor frac log log10 log1p log2 neg
    reciprocal round rsqrt sgn sigmoid sign sin sinc sinh sqrt square tan tanh trunc deg2rad rad2deg logit relu
    logical_not bitwise_not logical_and logical_or logical_xor maximum minimum atan2 hypot heaviside logaddexp
    floor_divide addcmul addcdiv isnan
    elu celu gelu silu mish softplus hardtanh hardsigmoid hardswish leaky_relu log_sigmoid_forward
    mse_loss smooth_l1_loss huber_loss
    sum mean prod max min any all median amax amin argmax argmin logsumexp cumsum cumprod count_nonzero
    linalg_vector_norm linalg_cross _softmax _log_softmax topk sort dist
    mm bmm mv dot addmm baddbmm
    cat stack unsqueeze squeeze view _unsafe_view _reshape_alias expand permute t roll flip repeat clone
    index_select gather index_put copy select_scatter slice_scatter split_with_sizes
    zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full arange linspace eye scalar_tensor
    _to_copy clamp clamp_min clamp_max
"""
_OVERLOADS = """
    add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
    div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode floor_divide.Scalar
    pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar
    remainder.Tensor remainder.Scalar remainder.Scalar_Tensor fmod.Tensor fmod.Scalar
    copysign.Tensor copysign.Scalar xlogy.Tensor xlogy.Scalar_Self xlogy.Scalar_Other lerp.Scalar lerp.Tensor
    eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor
    ge.Scalar bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor
    bitwise_xor.Scalar clamp.Tensor clamp_min.Tensor clamp_max.Tensor where.self masked_fill.Scalar
    masked_fill.Tensor fill.Scalar fill.Tensor round.decimals
    sum.dim_IntList mean.dim prod.dim_int max.dim min.dim any.dim any.dims all.dim all.dims median.dim
    std.correction var.correction var_mean.correction std_mean.correction norm.Scalar norm.ScalarOpt_dim
    count_nonzero.dim_IntList sort.stable
    squeeze.dim squeeze.dims transpose.int select.int slice.Tensor split.Tensor unbind.int index.Tensor
    view.dtype arange.start arange.start_step eye.m
"""
NAMES = frozenset(
    [f"{name}.default" for name in _DEFAULT.split()] + [name for name in _OVERLOADS.split() if name != "view.dtype"]
)
"""Names of the operators, as in `torch.ops.aten`, without the namespace."""

FACTORIES = frozenset(
    f"{name}.default" for name in ["zeros", "ones", "full", "arange", "linspace", "eye", "scalar_tensor"]
) | {"arange.start", "arange.start_step", "eye.m"}
"""Operators that make a tensor of nothing; on which device has to be said."""

DTYPES = {
    "float32": torch.float32,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}
"""Element types that a program can make."""

MEMORY_FORMATS = {
    "contiguous_format": torch.contiguous_format,
    "preserve_format": torch.preserve_format,
}

DROPPED_ARGUMENTS = frozenset({"device", "layout", "pin_memory", "non_blocking", "generator"})
"""Arguments that are the trainer's to choose, never a graph's."""


@functools.cache
def overload(name: str) -> torch._ops.OpOverload | None:
    """The operator of an allowed name; None for every other name, and where this torch has no such overload."""
    if name not in NAMES:
        return None
    packet_name, _, overload_name = name.rpartition(".")
    packet = getattr(torch.ops.aten, packet_name, None)
    found = getattr(packet, overload_name, None) if packet is not None else None
    return found if isinstance(found, torch._ops.OpOverload) else None


def binding(name: str) -> Callable[..., Any] | None:
    """torch's own Python binding of an operator, which takes half the time to call; None where there is none.

    Called with a tensor first it chooses the same operator from the same arguments.
    """
    packet = name.partition(".")[0]
    return _BINDINGS.get(packet) if name in NAMES else None


_BOUND = """
    abs exp log log1p sqrt rsqrt neg square sigmoid tanh sin cos sign reciprocal relu floor acos atan2 hypot
    add sub mul div rsub pow maximum minimum where clamp clamp_min clamp_max
    eq ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not
    sum mean prod amax amin select squeeze unsqueeze stack cat zeros_like ones_like full_like softmax
"""
_BINDINGS: dict[str, Callable[..., Any]] = {name: getattr(torch, name) for name in _BOUND.split()} | {
    "linalg_vector_norm": torch.linalg.vector_norm,
    "softplus": torch.nn.functional.softplus,
}


def is_view(operator: torch._ops.OpOverload) -> bool:
    """Whether the results share the memory of an argument."""
    return any(argument.alias_info is not None for argument in operator._schema.arguments)
