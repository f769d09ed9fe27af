"""Tensors with a symbolic number of worlds N for `rewards.recorder`: made, looked at, and nothing supposed about N.

Whatever makes torch suppose something about N ends the run. Runs in the trial's child process.
"""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch._dynamo.source import LocalSource
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._python_dispatch import _disable_current_modes

from rewards.expressions import Violation
from rewards.graph import Size
from rewards.shapes import Form
from rewards.trace import PROGRAM_NAME

WORLDS_HINT = 8_209
"""What N is taken for where torch wants an example: a prime that no program mentions."""
ASK_NO_NUMBER = "tensors hold all worlds already: no loop, branch or number may depend on how many there are"
_CPU = torch.device("cpu")


class Untraceable(Exception):
    """The program has no graph that holds for every number of worlds."""

    def __init__(self, line: int, code: str, message: str, hint: str, error_type: str = "ValueError") -> None:
        super().__init__(message)
        self.violation = Violation(line, code, message, hint)
        self.error_type = error_type
        """Class of the exception that the program itself raised, if it did."""


class _Guards(list[Any]):
    """What torch had to suppose about N for the program to go on. Nothing may be supposed."""

    def append(self, guard: Any) -> None:
        message = "a number of worlds decides what the program does, or is written into it."
        raise Untraceable(running_line(), "T214", message, ASK_NO_NUMBER)


def running_line() -> int:
    """The innermost line of the reward program that is running; 0 outside."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != PROGRAM_NAME:
        frame = frame.f_back
    return frame.f_lineno if frame is not None else 0


class Symbolic:
    """N, and tensors without values whose sizes may mention it."""

    def __init__(self) -> None:
        shapes = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
        self.mode.cache_enabled = False  # looking symbolic shapes up costs more than computing them
        source = LocalSource("worlds")
        self._symbol = shapes.create_symbol(WORLDS_HINT, source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
        self._worlds: Any = shapes.create_symintnode(self._symbol, hint=WORLDS_HINT, source=source)
        shapes.guards = _Guards()
        self._kept: list[torch.Tensor] = []  # an id means its tensor as long as that lives
        self._forms: dict[int, Form] = {}
        self._templates: dict[Form, torch.Tensor] = {}

    def form(self, tensor: torch.Tensor) -> Form:
        """What is known of a tensor; refuses a size that is not in proportion to the number of worlds."""
        known = self._forms.get(id(tensor))
        if known is None:
            sizes = tuple(self.size(size) for size in tensor.shape)
            known = Form(tensor.dtype, sizes, self._strides(tensor))
            self._kept.append(tensor)
            self._forms[id(tensor)] = known
        return known

    def _strides(self, tensor: torch.Tensor) -> tuple[Any, ...] | None:
        strides = tensor.stride()
        if not all(isinstance(step, int) or step.node.expr == self._symbol for step in strides):
            return None
        return tuple(step if isinstance(step, int) else Size(0, 1) for step in strides)

    def formed(self, value: Any) -> Any:
        """An argument as `rewards.shapes.quick` wants it."""
        if isinstance(value, torch.Tensor):
            return self.form(value)
        if isinstance(value, torch.SymInt) and value.node.expr == self._symbol:
            return Size(0, 1)
        return [self.formed(item) for item in value] if isinstance(value, list | tuple) else value

    def tensor(self, form: Form) -> torch.Tensor:
        """A tensor without values. Those of one form are copies of one: a symbolic size takes long to make."""
        template = self._templates.get(form)
        if template is None:
            sizes, strides = ([self._symbolic(item) for item in part] for part in (form.sizes, form.strides or ()))
            with _disable_current_modes():
                template = torch.empty_strided(sizes, strides, dtype=form.dtype, device="meta")
            self._templates[form] = template
        made = FakeTensor(self.mode, template, _CPU)
        self._kept.append(made)
        self._forms[id(made)] = form
        return made

    def _symbolic(self, size: Any) -> Any:
        return size.offset + size.slope * self._worlds if isinstance(size, Size) else size

    def size(self, size: Any) -> int | Size:
        """A size as a number, or as a + b N."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        expression = size.node.expr
        if expression == self._symbol:
            return Size(0, 1)
        if expression.is_number:
            return int(expression)
        expanded = expression.expand()
        slope = expanded.coeff(self._symbol, 1)
        offset = expanded - slope * self._symbol
        if not (slope.is_Integer and offset.is_Integer):
            message = f"a size is not in proportion to the number of worlds: {expression}."
            raise Untraceable(
                running_line(), "T211", message, "a (N,) and a (N, 1) tensor were combined? Take columns by x[:, 0]"
            )
        return Size(int(offset), int(slope))


_ready: list[Symbolic] = []


def make_ready(dims: Iterable[int]) -> None:
    """Make what every run begins with, so that each fork of this process finds it: N, and tensors of the forms that
    signals of these dims, their columns and results have. A symbolic size takes longer to make than most runs use."""
    shapes, worlds = Symbolic(), Size(0, 1)
    with shapes.mode, torch.no_grad():
        for dtype in (torch.float32, torch.bool):
            shapes.tensor(Form(dtype, (worlds,), (1,)))
        for wide in sorted({1, *dims}):
            shapes.tensor(Form(torch.float32, (worlds, wide), (wide, 1)))
            shapes.tensor(Form(torch.float32, (worlds,), (wide,)))
    _ready[:] = [shapes]


def fresh() -> Symbolic:
    """One for a run: that made ready, the first time."""
    return _ready.pop() if _ready else Symbolic()


def size_data(size: int | Size) -> Any:
    """A size as a graph holds it."""
    return {"n": [*size]} if isinstance(size, Size) else size
