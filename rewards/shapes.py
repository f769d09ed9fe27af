"""Shapes of operators' results, for the operators that rewards consist of, without asking torch.

torch finds a shape with symbolic sizes in 0.3 to 14 ms an operator, with plain sizes on its meta device in 0.01 to
1 ms, and a gate traces dozens of operators for each candidate. Here are the plain cases: operators on float32 or
bool tensors number by number with broadcasting, reductions over a dimension, factories, and views of one dimension.
`quick` answers None wherever anything is out of the ordinary (other dtypes, sizes that do not broadcast, layouts
that are not row by row, a dimension out of range): then torch is asked, and it is torch that refuses.

A size is a whole number, or `rewards.graph.Size` (a + b N), which equals no plain number. Strides count numbers, as in
torch. tests/rewards/test_shapes.py compares every operator here with torch.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from rewards.operators import overload

Sizes = tuple[Any, ...]
"""Whole numbers, or `rewards.graph.Size` for those that grow with the number of worlds."""


class Form(NamedTuple):
    """What is known of a tensor before it has values."""

    dtype: torch.dtype
    sizes: Sizes
    strides: Sizes | None
    """None: not known."""


def _names(text: str) -> frozenset[str]:
    return frozenset(name if "." in name else f"{name}.default" for name in text.split())


_FLOATS = _names("""
    abs acos acosh asin asinh atan atanh ceil cos cosh erf erfc exp exp2 expm1 floor frac log log10 log1p log2 neg
    reciprocal round rsqrt sgn sigmoid sign sin sinc sinh sqrt square tan tanh trunc relu
    maximum minimum atan2 hypot logaddexp elu celu gelu silu mish softplus hardtanh hardsigmoid hardswish leaky_relu
    clamp clamp_min clamp_max clamp.Tensor clamp_min.Tensor clamp_max.Tensor
    add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
    div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar
    remainder.Tensor remainder.Scalar fmod.Tensor fmod.Scalar copysign.Tensor copysign.Scalar xlogy.Tensor
    lerp.Scalar lerp.Tensor
""")
"""float32 and numbers in, float32 out."""
_COMPARES = _names("""
    eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor
    ge.Scalar isnan
""")
"""float32 and numbers in, bool out."""
_LOGIC = _names("""
    logical_not logical_and logical_or logical_xor bitwise_not bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor
""")
"""bool in, bool out."""
_SELECTS = _names("where.self masked_fill.Scalar")
"""One bool and float32 in, float32 out."""
_REDUCES = {
    **dict.fromkeys(_names("sum.dim_IntList mean.dim prod.dim_int amax amin"), (1, 2, torch.float32)),
    **dict.fromkeys(_names("std.correction var.correction"), (1, None, torch.float32)),
    **dict.fromkeys(_names("any.dim all.dim any.dims all.dims"), (1, 2, torch.bool)),
    "linalg_vector_norm.default": (2, 3, torch.float32),
}
"""Places of the dimensions and of `keepdim` among the positional arguments (None: a keyword only), and the dtype in
and out."""
_LIKES = _names("zeros_like ones_like full_like clone")
_MADE = _names("zeros ones full")
_VIEWS = _names("select.int slice.Tensor unsqueeze squeeze.dim")
_NUMBERS_FOR_TENSORS = _names("add.Tensor sub.Tensor mul.Tensor div.Tensor div.Tensor_mode")
"""Operators whose second tensor may be a plain number."""
_LAYOUT = frozenset({"device", "layout", "pin_memory", "dtype"})
_END = 2**63 - 1


def quick(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Form | None:
    """The form of what an operator makes; None: ask torch.

    Args:
        name: As in `rewards.operators.NAMES`.
        args: Its arguments, with a `Form` in place of each tensor and a `Size` of each symbolic size.
        kwargs: Its keyword arguments, in the same way.
    """
    if not _has_its_tensors(name, args):
        return None
    if name in _FLOATS:
        return _pointwise(args, kwargs, (torch.float32,), torch.float32)
    if name in _COMPARES:
        return _pointwise(args, kwargs, (torch.float32,), torch.bool)
    if name in _LOGIC:
        return _pointwise(args, kwargs, (torch.bool,), torch.bool)
    if name in _SELECTS:
        condition = args[0] if name == "where.self" else args[1]
        rest = [item for item in args if item is not condition]
        sound = isinstance(condition, Form) and condition.dtype == torch.bool
        sound = sound and all(item.dtype == torch.float32 for item in rest if isinstance(item, Form))
        return _pointwise(args, kwargs, (torch.bool, torch.float32), torch.float32) if sound else None
    if name in _REDUCES:
        return _reduced(name, args, kwargs)
    if name in _LIKES:
        return _like(name, args, kwargs)
    if name in _MADE:
        return _made(name, args, kwargs)
    return _viewed(name, args) if name in _VIEWS and not kwargs and isinstance(args[0], Form) else None


def _has_its_tensors(name: str, args: Sequence[Any]) -> bool:
    if name in _NUMBERS_FOR_TENSORS:
        return len(args) > 1 and isinstance(args[0], Form)
    kinds = _takes_tensor(name)
    if len(args) > len(kinds):
        return False
    return all(isinstance(value, Form) is kind for value, kind in zip(args, kinds, strict=False)) and not any(
        kinds[len(args) :]
    )


@functools.cache
def _takes_tensor(name: str) -> tuple[bool, ...]:
    """Of each positional argument, whether it is a tensor."""
    operator = overload(name)
    arguments = [] if operator is None else operator._schema.arguments
    return tuple("Tensor" in str(argument.real_type) for argument in arguments if not argument.kwarg_only)


def of_meta(tensor: torch.Tensor) -> Form:
    """The form of a tensor with plain sizes."""
    return Form(tensor.dtype, tuple(tensor.shape), tensor.stride())


def contiguous(sizes: Sizes) -> Sizes | None:
    """Strides of a tensor that lies row by row; None where they are no multiple of the number of worlds."""
    strides: list[Any] = []
    step: Any = 1
    for size in reversed(sizes):
        strides.append(step)
        step = times(step, size)
        if step is None:
            return None
    return tuple(reversed(strides))


def times(a: Any, b: Any) -> Any:
    """The product of two sizes; None if it grows with the square of N. A plain size of 0 counts as 1, as in strides."""
    if isinstance(a, int):
        a = max(a, 1)
        return a * max(b, 1) if isinstance(b, int) else type(b)(a * b.offset, a * b.slope)
    return times(b, a) if isinstance(b, int) else None


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _pointwise(
    args: Sequence[Any], kwargs: Mapping[str, Any], accepted: Sequence[torch.dtype], made: torch.dtype
) -> Form | None:
    sizes: Sizes = ()
    strides: list[tuple[Sizes, Sizes]] = []
    for value in args:
        if isinstance(value, Form):
            joined = _broadcast(sizes, value.sizes)
            if value.dtype not in accepted or joined is None or value.strides is None:
                return None
            sizes = joined
            strides.append((value.sizes, value.strides))
        elif not _is_number(value):
            return None
    if not strides or not all(_is_number(value) or isinstance(value, str) for value in kwargs.values()):
        return None
    if len(sizes) > 1 and not all(_by_rows(*operand) for operand in strides):
        return None
    return _plain(made, sizes)


def _plain(dtype: torch.dtype, sizes: Sizes) -> Form | None:
    strides = contiguous(sizes)
    return None if strides is None else Form(dtype, sizes, strides)


def _broadcast(a: Sizes, b: Sizes) -> Sizes | None:
    if a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    made = list(a)
    for place in range(1, len(b) + 1):
        first, second = a[-place], b[-place]
        if first == 1:
            made[-place] = second
        elif second not in (1, first):
            return None
    return tuple(made)


def _by_rows(sizes: Sizes, strides: Sizes) -> bool:
    """Whether torch lays a result of this operand out row by row: no later dimension has the longer step."""
    steps = [step for size, step in zip(sizes, strides, strict=True) if size != 1]
    return all(isinstance(step, int) for step in steps) and all(a >= b for a, b in itertools.pairwise(steps))


def _dimension(value: Any, rank: int) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or not -rank <= value < rank:
        return None
    return value % rank


def _reduced(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Form | None:
    dim_place, keep_place, dtype = _REDUCES[name]
    tensor, rest = args[0], {key: value for key, value in kwargs.items() if key != "correction"}
    keep = rest.pop("keepdim", False)
    if keep_place is not None and len(args) > keep_place:
        keep = args[keep_place]
        args = args[:keep_place] if len(args) == keep_place + 1 else ()
    if any(value is not None for value in rest.values()) or len(args) != dim_place + 1 or not isinstance(keep, bool):
        return None
    if tensor.dtype != dtype or tensor.strides is None:
        return None
    wanted = args[dim_place] if isinstance(args[dim_place], list | tuple) else [args[dim_place]]
    dims = {_dimension(value, len(tensor.sizes)) for value in wanted}
    # A reduction over all worlds, or over nothing, is torch's to judge.
    if not dims or None in dims or len(dims) != len(wanted):
        return None
    if 0 in tensor.sizes or any(not isinstance(tensor.sizes[dim], int) for dim in dims if dim is not None):
        return None
    if keep:
        sizes = tuple(1 if place in dims else size for place, size in enumerate(tensor.sizes))
    else:
        sizes = tuple(size for place, size in enumerate(tensor.sizes) if place not in dims)
    if len(sizes) > 1 and not _by_rows(tensor.sizes, tensor.strides):
        return None
    return _plain(dtype, sizes)


def _like(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Form | None:
    tensor, count = args[0], 2 if name.startswith("full") else 1
    if len(args) != count or tensor.strides is None or not set(kwargs) <= _LAYOUT or not all(map(_is_number, args[1:])):
        return None
    if len(tensor.sizes) > 1 and not _by_rows(tensor.sizes, tensor.strides):
        return None
    return _plain(kwargs.get("dtype") or tensor.dtype, tensor.sizes)


def _made(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Form | None:
    dtype = kwargs.get("dtype") or (None if name.startswith("full") else torch.float32)
    if not set(kwargs) <= _LAYOUT or dtype is None or not isinstance(args[0], list | tuple):
        return None
    if not all(_is_number(value) for value in args[1:]):
        return None
    if any(size is None or isinstance(size, bool) or (isinstance(size, int) and size < 0) for size in args[0]):
        return None
    return _plain(dtype, tuple(args[0]))


def _viewed(name: str, args: Sequence[Any]) -> Form | None:
    tensor: Form = args[0]
    sizes: list[Any] = list(tensor.sizes)
    strides: list[Any] = list(tensor.strides or ())
    rank = len(sizes)
    if len(strides) != rank or len(args) < 2:
        return None
    dim = _dimension(args[1], rank + (name == "unsqueeze.default"))
    if dim is None:
        return None
    if name == "unsqueeze.default":
        step = times(sizes[dim], strides[dim]) if dim < rank else 1
        sizes.insert(dim, 1)
        strides.insert(dim, step)
        return None if step is None else Form(tensor.dtype, tuple(sizes), tuple(strides))
    first, last, step = [*args[2:], *(None, None, None)[len(args) - 2 :]] if name == "slice.Tensor" else [None] * 3
    if name == "slice.Tensor" and first in (None, 0) and last in (None, _END) and step in (None, 1):
        return tensor
    if not isinstance(sizes[dim], int) or not isinstance(strides[dim], int):
        return None
    if name == "slice.Tensor":
        bounds = (first or 0, _END if last is None else last, 1 if step is None else step)
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in bounds) or bounds[2] < 1:
            return None
        sizes[dim], strides[dim] = len(range(sizes[dim])[slice(*bounds)]), strides[dim] * bounds[2]
        return Form(tensor.dtype, tuple(sizes), tuple(strides))
    if name == "squeeze.dim" and sizes[dim] != 1:
        return tensor
    if name == "select.int" and (len(args) != 3 or _dimension(args[2], sizes[dim]) is None):
        return None
    del sizes[dim], strides[dim]
    return Form(tensor.dtype, tuple(sizes), tuple(strides))
