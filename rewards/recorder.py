"""A program's entry point -> its reward graph: one symbolic run, every tensor operator written down.

Runs in the trial's child process. The program gets tensors that have a shape, one symbolic number of worlds N in it,
and no values, and what it calls is recorded below `torch.func.functionalize`, so that changes in place become new
tensors. Whatever would make the graph true for some numbers of worlds only ends the run: a loop or branch over N,
a size that mentions one N, a decision on a value. This is what `torch.export` does in its non-strict mode, without
its passes afterwards (0.07 s instead of 0.65 s for a program of 45 operators).

The result is plain data, see `rewards.graph`: equal operators are merged, those of constants alone are computed,
those without effect on the results are left out. Values are not looked at here.
"""

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from rewards.graph import FORMAT, MAX_CONSTANT_NUMBERS, MAX_NODES, Size
from rewards.numbering import flat, numbered
from rewards.operators import DROPPED_ARGUMENTS, DTYPES, MEMORY_FORMATS, is_view, overload
from rewards.result import one_line, structure_problem
from rewards.shapes import Form, quick
from rewards.symbolic import ASK_NO_NUMBER, Symbolic, Untraceable, fresh, running_line, size_data
from rewards.trace import Program, program_line

FOLDED_NUMBERS = 1024
"""Largest result of constants alone that is computed once and kept."""

_SORTED = json.JSONEncoder(sort_keys=True)  # made once: `json.dumps` makes one at every call
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_FORMAT_NAMES = {memory_format: name for name, memory_format in MEMORY_FORMATS.items()}
_SAME = frozenset({"lift_fresh.default", "lift_fresh_copy.default", "detach.default", "alias.default"})
_VALUE_HINT = "use torch.where for decisions and torch.stack to join tensors"
_MASK_HINT = "use torch.where(mask, a, b)"
_CHANGED_HINT = "make new tensors: y = x + 1 instead of x += 1, and x.clone() before writing into x"
_STATE = "a tensor made at the top level of the program is changed."
_STATE_HINT = "keep no state: make new tensors inside the function"


def record(program: Program, inputs: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The reward graph of a program as plain data.

    Args:
        program: the entry point, of whose arguments nothing but the shapes (N, dims) is known.
        inputs: name and dims of each argument, in order.

    Raises:
        Untraceable: with a code of `rewards.trial_rules.TRIAL_RULES` and the program's line.
    """
    shapes = fresh()
    with shapes.mode, torch.no_grad():
        recorder = _Recorder(shapes)
        arguments = [recorder.argument(place, dims) for place, (_, dims) in enumerate(inputs)]
        result = _run(program, arguments, recorder)
        if problem := structure_problem(result):
            raise Untraceable(0, "T202", problem, "return the same form for every number of worlds")
        total, components = result
        graph = {
            "format": FORMAT,
            "torch": ".".join(torch.__version__.split(".")[:2]),
            "inputs": [[name, dims] for name, dims in inputs],
            "constants": recorder.constants,
            "nodes": recorder.nodes,
            "total": recorder.result("total", total),
            "components": [[name, recorder.result(name, value)] for name, value in components.items()],
        }
    return numbered(graph)


def _run(program: Program, arguments: Sequence[torch.Tensor], recorder: "_Recorder") -> Any:
    def entry(*tensors: torch.Tensor) -> object:  # `functionalize` wants a function with a name
        return program(*tensors)

    try:
        with recorder:
            return torch.func.functionalize(entry)(*arguments)
    except Exception as error:
        if recorder.refusal is not None:
            raise recorder.refusal from None
        if isinstance(error, Untraceable):
            raise
        line = program_line(error)
        if type(error).__module__.startswith("torch."):  # an exception of symbolic shapes or of fake tensors
            message = "a number, truth value or shape depends on the values of tensors."
            raise Untraceable(line, "T210", message, _VALUE_HINT) from error
        if "mutating a non-functional tensor" in str(error):
            raise Untraceable(line, "T207", _STATE, _STATE_HINT) from error
        kind = type(error).__name__
        message = f"with an unknown number of worlds: {kind}: {one_line(error)}"
        raise Untraceable(line, "T214", message, ASK_NO_NUMBER, kind) from error


class _Recorder(TorchDispatchMode):
    """Writes down every operator with its arguments as plain data. Values are numbered as in `rewards.graph`, but
    each of its own list: ("input" | "constant" | "node", place[, output])."""

    def __init__(self, shapes: Symbolic) -> None:
        super().__init__()
        self.constants: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.refusal: Untraceable | None = None
        self._shapes = shapes
        self._kept: list[torch.Tensor] = []  # an id means its tensor as long as that lives
        self._references: dict[int, list[Any]] = {}
        self._own: set[int] = set()  # tensors that an operator made, by id
        self._aliased: set[int] = set()  # tensors whose memory another one shows
        self._known: dict[str, list[list[Any]]] = {}
        self._values: list[torch.Tensor] = []  # of the constants
        self._numbers = 0

    def argument(self, place: int, dims: int) -> torch.Tensor:
        """The program's argument of that place: (N, dims)."""
        tensor = self._shapes.tensor(Form(torch.float32, (Size(0, 1), dims), (dims, 1)))
        self._name(tensor, ["input", place])
        return tensor

    def result(self, name: str, value: torch.Tensor) -> list[Any]:
        """The reference of a result that has one number per world, whatever their number."""
        shape = self._shapes.form(value).sizes
        if shape != (Size(0, 1),) or value.dtype != torch.float32:
            sizes = [size if isinstance(size, int) else _words(*size) for size in shape]
            form = f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"
            message = f"'{name}' is {form} {value.dtype} for N worlds; expected (N,) torch.float32."
            raise Untraceable(0, "T214", message, "let the shape follow from the arguments' shapes")
        return self._reference(value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks for a device
            return func(*args, **kwargs)
        try:
            return self._record(func, args, kwargs)
        except Untraceable as refusal:  # C++ code between here and the program may replace the exception
            self.refusal = self.refusal or refusal
            raise

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = str(func).removeprefix("aten.")
        if func.namespace == "aten" and func._schema.is_mutable and id(args[0]) in self._own - self._aliased:
            return self._in_place(name, func, args, kwargs)
        if func.namespace != "aten" or not (name in _SAME or overload(name)):
            self._refuse_operator(func, name, args)
        if name == "index.Tensor" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self._refuse("T210", "the shape of a result depends on values (a mask selects rows).", _MASK_HINT)
        if name == "index_put.default":
            return self._write_by_index(func, args, kwargs)
        form = quick(
            name, self._shapes.formed(args), {key: self._shapes.formed(value) for key, value in kwargs.items()}
        )
        output: Any = func(*args, **kwargs) if form is None else self._shapes.tensor(form)
        if name in _SAME or _changes_nothing(name, args, kwargs, output):
            self._name(output, self._reference(args[0]))
            self._aliased |= {id(args[0]), id(output)}
            return output
        if is_view(func):
            outputs = output if isinstance(output, tuple | list) else [output]
            self._aliased |= {id(args[0]), *map(id, outputs)}
        return self._append(name, func, args, kwargs, output)

    def _append(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        outputs: list[torch.Tensor] = list(output) if isinstance(output, tuple | list) else [output]
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if isinstance(value, torch.SymInt) and str(argument.type) == "number" and not name.startswith("arange"):
                self._refuse("T214", f"'{name}' is given a number made of the number of worlds.", ASK_NO_NUMBER)
        folded = self._folded(func, args, kwargs) if len(outputs) == 1 else None
        if folded is not None:
            self._name(outputs[0], self._constant(folded))
            self._own.add(id(output))
            return output
        forms = [self._shapes.form(item) for item in outputs]
        node = {
            "op": name,
            "args": [self._encode(name, value) for value in args],
            "kwargs": {
                key: self._encode(name, value)
                for key, value in kwargs.items()
                if key not in DROPPED_ARGUMENTS and value is not None
            },
            "out": [[self._dtype(form.dtype), [size_data(size) for size in form.sizes]] for form in forms],
        }
        key = _SORTED.encode([node["op"], node["args"], node["kwargs"]])
        if key not in self._known:
            if len(self.nodes) >= MAX_NODES:
                self._refuse("T215", f"the program has more than {MAX_NODES} tensor operations.", "compute less")
            self._known[key] = [["node", len(self.nodes), place] for place in range(len(outputs))]
            self.nodes.append({**node, "line": running_line()})
        for item, reference in zip(outputs, self._known[key], strict=True):
            self._name(item, reference)
        self._own |= {id(item) for item in outputs}
        return output

    def _in_place(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A change in place inside one of torch's own functions: `functionalize` leaves those alone that it does not
        look into. The tensor was made here and has no views, so that from now on it is simply another value."""
        packet, _, variant = name.rpartition(".")
        pure = overload(f"{packet.removesuffix('_')}.{variant}")
        written = [
            argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments
        ]
        if pure is None or written.count(True) != 1 or not written[0]:
            self._refuse_operator(func, name, args)
        made = self._record(pure, args, kwargs)
        if self._shapes.form(made)[:2] != self._shapes.form(args[0])[:2]:
            self._refuse_operator(func, name, args)
        self._name(args[0], self._reference(made))
        return args[0]

    def _write_by_index(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`x[mask] = v` as a choice between x and v: the write itself would have to count what is true."""
        target, indices, value = args[0], args[1], args[2]
        masks = [index for index in indices if index is not None and index.dtype == torch.bool]
        if not masks:
            return self._append("index_put.default", func, args, kwargs, func(*args, **kwargs))
        below = target.dim() - masks[0].dim()
        accumulate = (len(args) > 3 and args[3]) or kwargs.get("accumulate", False)
        if len(indices) != 1 or accumulate or value.dim() > below + (1 if value.shape[:1] == (1,) else 0):
            self._refuse("T210", "a mask is used together with other indices.", _MASK_HINT)
        with self:  # a mode is off while it handles an operator
            return torch.ops.aten.where.self(self._unsqueezed(masks[0], below), value, target)

    def _unsqueezed(self, mask: torch.Tensor, times: int) -> torch.Tensor:
        for _ in range(times):
            mask = torch.ops.aten.unsqueeze.default(mask, -1)
        return mask

    def _folded(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """The value of an operator on constants alone, if it is small; None: it stays an operator."""
        tensors = [value for value in flat([args, kwargs]) if isinstance(value, torch.Tensor)]
        references = [self._reference(tensor) for tensor in tensors]
        if any(reference[0] != "constant" for reference in references) or func._schema.name.startswith("aten::empty"):
            return None
        if any(isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool) for value in flat([args, kwargs])):
            return None
        real = dict(zip(map(id, tensors), (self._values[reference[1]] for reference in references), strict=True))

        def concrete(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(concrete(item) for item in value)
            return real[id(value)] if isinstance(value, torch.Tensor) else value

        with _disable_current_modes():
            value = func(*concrete(args), **{name: concrete(item) for name, item in kwargs.items()})
            small = value.numel() <= FOLDED_NUMBERS and bool(torch.isfinite(value).all())
        return value if small else None

    def _reference(self, tensor: torch.Tensor) -> list[Any]:
        if id(tensor) not in self._references:  # a tensor that the program's text holds
            self._name(tensor, self._constant(tensor))
        return self._references[id(tensor)]

    def _name(self, tensor: torch.Tensor, reference: list[Any]) -> None:
        self._kept.append(tensor)
        self._references[id(tensor)] = reference

    def _constant(self, tensor: torch.Tensor) -> list[Any]:
        with _disable_current_modes():
            value = tensor.detach().clone()
            self._numbers += value.numel()
            if self._numbers > MAX_CONSTANT_NUMBERS:
                self._refuse("T215", f"its constants have more than {MAX_CONSTANT_NUMBERS} numbers.", "make them small")
            if not bool(torch.isfinite(value).all()):
                self._refuse("T215", "a constant is not finite.", "write finite numbers")
            data = {"dtype": self._dtype(value.dtype), "shape": list(value.shape), "data": value.flatten().tolist()}
        key = json.dumps(data)
        if key not in self._known:
            self._known[key] = [["constant", len(self.constants)]]
            self.constants.append(data)
            self._values.append(value)
        return self._known[key][0]

    def _encode(self, operator: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return {"v": self._reference(value)}
        if isinstance(value, list | tuple):
            return [self._encode(operator, item) for item in value]
        if isinstance(value, torch.SymInt):
            return size_data(self._shapes.size(value))
        if isinstance(value, torch.dtype):
            return {"dtype": self._dtype(value)}
        if isinstance(value, torch.memory_format):
            if value not in _FORMAT_NAMES:
                self._refuse("T215", f"the memory format {value} is not available.", "leave it away")
            return {"format": _FORMAT_NAMES[value]}
        if isinstance(value, float) and not math.isfinite(value):
            if not math.isnan(value) and operator in ("eq.Scalar", "ne.Scalar"):
                return {"float": str(value)}
            self._refuse("T215", f"'{operator}' is given the number {value}.", "write finite numbers")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return self._refuse("T214", f"'{operator}' is given a number made of the number of worlds.", ASK_NO_NUMBER)

    def _dtype(self, dtype: torch.dtype) -> str:
        if dtype not in _DTYPE_NAMES:
            self._refuse("T204", f"a tensor is {dtype}.", "use float32, int64, int32 or bool")
        return _DTYPE_NAMES[dtype]

    def _refuse_operator(self, func: Any, name: str, args: Sequence[Any]) -> NoReturn:
        if torch.Tag.data_dependent_output in func.tags:
            self._refuse("T210", "a tensor is turned into a Python number or truth value.", _VALUE_HINT)
        if func._schema.is_mutable and self._references.get(id(args[0]), [""])[0] == "input":
            self._refuse("T208", "the program changes an argument in place.", _CHANGED_HINT)
        if func._schema.is_mutable:
            self._refuse("T207", _STATE, _STATE_HINT)
        self._refuse("T215", f"the operator '{name}' is not available.", "write it with other torch functions")

    def _refuse(self, code: str, message: str, hint: str) -> NoReturn:
        raise Untraceable(running_line(), code, message, hint)


def _changes_nothing(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
    """A slice of everything, or a conversion to what the tensor is already."""
    if name == "slice.Tensor":
        whole = len(args) < 3 or (args[2] in (None, 0) and (len(args) < 4 or args[3] in (None, sys.maxsize)))
        return whole and (len(args) < 5 or args[4] == 1)
    return name == "_to_copy.default" and output.dtype == args[0].dtype and kwargs.get("memory_format") is None


def _words(offset: int, slope: int) -> str:
    worlds = "N" if slope == 1 else f"{slope} N"
    return f"{worlds} + {offset}" if offset else worlds
