"""Shapes found without torch are those that torch finds: every operator of `rewards.shapes` against its meta device."""

import itertools
import random
from typing import Any

import pytest
import torch

from rewards import shapes
from rewards.operators import NAMES, overload
from rewards.shapes import Form, of_meta, quick

SEEDS = range(60)
ASKED = 0.35
"""Least share of random calls that have to be answered: a module that always says "ask torch" would pass otherwise."""
ALL = [
    *(*shapes._FLOATS, *shapes._COMPARES, *shapes._LOGIC, *shapes._SELECTS, *shapes._REDUCES),
    *(*shapes._LIKES, *shapes._MADE, *shapes._VIEWS),
]
DTYPES = (torch.float32, torch.float32, torch.float32, torch.bool, torch.int64)


def tensor(rng: random.Random, sizes: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without memory: row by row, or a column, a transposed or an expanded one."""
    made = torch.empty(sizes, dtype=dtype, device="meta")
    kind = rng.random()
    if kind < 0.12:
        return torch.empty((*sizes, 3), dtype=dtype, device="meta").select(-1, 1)
    if kind < 0.24 and len(sizes) > 1:
        return torch.empty((*sizes[:-2], sizes[-1], sizes[-2]), dtype=dtype, device="meta").transpose(-1, -2)
    if kind < 0.32 and sizes:
        return torch.empty((1, *sizes[1:]), dtype=dtype, device="meta").expand(sizes)
    if kind < 0.4 and sizes:
        return torch.empty((sizes[0], *(2 * size for size in sizes[1:])), dtype=dtype, device="meta")[
            (slice(None), *(slice(0, size) for size in sizes[1:]))
        ]
    return made


def dim(rng: random.Random, rank: int) -> int:
    return rng.randint(-rank - (rng.random() < 0.1), rank - (rng.random() < 0.9)) if rank else 0


def number(rng: random.Random) -> float | int | bool:
    return rng.choice([0, 1, -2, 0.5, -1.5, True])


def call(name: str, rng: random.Random) -> tuple[list[Any], dict[str, Any]]:
    """Arguments that the operator may or may not accept."""
    rank = rng.choice([0, 1, 1, 2, 2, 2, 3])
    sizes = tuple(rng.choice([1, 2, 3, 3, 5, 0]) for _ in range(rank))
    dtype = torch.bool if name in shapes._LOGIC or name.startswith(("any", "all")) else rng.choice(DTYPES)
    first = tensor(rng, sizes, dtype)
    if name in shapes._MADE:
        return [list(sizes), *([number(rng)] if name.startswith("full") else [])], {"dtype": dtype}
    if name in shapes._LIKES:
        kwargs = {"dtype": rng.choice(DTYPES)} if rng.random() < 0.3 and name != "clone.default" else {}
        return [first, *([number(rng)] if name.startswith("full") else [])], kwargs
    args: list[Any] = [first]
    kwargs: dict[str, Any] = {}
    for argument in list(overload(name)._schema.arguments)[1:]:  # type: ignore[union-attr]
        kind = str(argument.real_type)
        alpha = argument.name == "alpha" and argument.kwarg_only
        if alpha or argument.name in ("dtype", "memory_format") or (argument.kwarg_only and kind == "str"):
            if alpha and rng.random() < 0.3:
                kwargs["alpha"] = number(rng)
            continue
        value: Any = argument.default_value
        if "Tensor" in kind:
            cut = rng.randint(0, rank)
            other = tuple(1 if rng.random() < 0.3 else size for size in sizes[cut:])
            bools = name in shapes._LOGIC or (name.startswith("masked") and argument.name == "mask")
            value = tensor(rng, other, torch.bool if bools else rng.choice(DTYPES[:3]) if rng.random() < 0.9 else dtype)
            value = number(rng) if rng.random() < 0.15 else value
        elif "int" in kind.lower() and "List" in kind:
            value = [dim(rng, rank) for _ in range(rng.randint(0 if rng.random() < 0.1 else 1, 2))]
        elif argument.name in ("dim", "index", "start", "end", "step") and kind != "bool":
            value = dim(rng, rank) if argument.name == "dim" else rng.choice([None, 0, 1, 2, 7, -1])
            if value is None and "Optional" not in kind:
                value = 1
        elif kind == "bool":
            value = rng.random() < 0.4
        elif "number" in kind.lower():
            value = number(rng)
        elif argument.has_default_value() and rng.random() < 0.5 and not argument.kwarg_only:
            break
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    if name == "pow.Scalar":
        args = [number(rng), first]
    if name == "where.self" and rng.random() < 0.8:
        args[0] = tensor(rng, sizes, torch.bool)
    if name == "div.Tensor_mode" or name == "div.Scalar_mode":
        kwargs["rounding_mode"] = rng.choice(["floor", "trunc", None])
    return args, kwargs


def formed(value: Any) -> Any:
    return of_meta(value) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_shape_is_what_torch_says(name: str) -> None:
    answered = 0
    for seed in SEEDS:
        args, kwargs = call(name, random.Random(f"{name} {seed}"))
        form = quick(name, [formed(value) for value in args], {key: formed(value) for key, value in kwargs.items()})
        if form is None:
            continue
        answered += 1
        made: torch.Tensor = overload(name)(*args, **kwargs, **({"device": "meta"} if name in shapes._MADE else {}))  # type: ignore[misc]
        said = (made.dtype, tuple(made.shape))
        assert (form.dtype, form.sizes) == said, (args, kwargs)
        steps = [(a, b) for a, b, size in zip(form.strides or (), made.stride(), made.shape, strict=True) if size > 1]
        assert made.numel() == 0 or all(a == b for a, b in steps), (args, kwargs, form, made.stride())
    hard = name in shapes._REDUCES or name in shapes._VIEWS  # most random dimensions do not exist
    assert answered >= len(SEEDS) * (ASKED / 4 if hard else ASKED), answered


def test_only_allowed_operators_are_answered() -> None:
    assert set(ALL) <= NAMES | {"slice.Tensor"}
    assert len(ALL) == len(set(ALL))
    assert quick("mm.default", [Form(torch.float32, (2, 3), (3, 1)), Form(torch.float32, (3, 2), (2, 1))], {}) is None


def test_sizes_that_grow_do_not_pass_for_plain_ones() -> None:
    from rewards.graph import Size

    worlds = Size(0, 1)
    column, row = Form(torch.float32, (worlds, 1), (1, 1)), Form(torch.float32, (3,), (1,))
    assert quick("add.Tensor", [column, row], {}) == Form(torch.float32, (worlds, 3), (3, 1))
    assert quick("add.Tensor", [Form(torch.float32, (worlds,), (1,)), row], {}) is None
    for a, b in itertools.permutations([Size(0, 1), Size(1, 1), Size(0, 2)], 2):
        left, right = Form(torch.float32, (a,), (1,)), Form(torch.float32, (b,), (1,))
        assert quick("add.Tensor", [left, right], {}) is None
    assert quick("add.Tensor", [column, Form(torch.float32, (1, worlds), (1, 1))], {}) is None  # N x N: torch refuses
    assert quick("select.int", [column, 0, 3], {}) is None
    assert quick("sum.dim_IntList", [column, [0]], {}) is None
