"""Follows the expressions of a reward program with stand-ins for its tensors; see `rewards.dry_run`.

Nothing is executed: a call of torch gives a new tensor token, a call of a helper is followed into it. Notes what an
expression would write into, how large what it makes can get, and what cannot be followed.
"""

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from rewards.expressions import Violation
from rewards.stand_ins import (
    MAX_ELEMENTS,
    MAX_LENGTH,
    OTHER,
    SIZE_BITS,
    Frame,
    Function,
    Number,
    Other,
    Shape,
    Tensor,
    TooLargeError,
    View,
    binary,
    either,
    elements,
    ordered,
    shares,
    truth,
)

MAX_TENSOR_OPERATIONS = 2000
"""Most tensor operations of one call; the recorded rewards take below 200."""
MAX_STEPS = 30_000
"""Most syntax nodes visited; the recorded rewards take below 1,500."""
_Container = TypeVar("_Container", bound=list | tuple | dict)  # type: ignore[type-arg]
CONSTANT = "a constant of the program"


class Stop(Exception):
    """Ends the walk with one violation."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.message)
        self.violation = violation


class DryExpressions(ABC):
    """Follows expressions; `violations` is what was found, `line` where the walk is."""

    def __init__(self, bindings: Mapping[str, str | None]) -> None:
        self.violations: list[Violation] = []
        self.line = 0
        self._bindings = bindings
        self._steps = 0
        self._depth = 0
        self._operations = 0
        self._shared = frozenset((CONSTANT,))  # while the module runs: what new tensors share
        self._outer: dict[int, object] = {}  # containers that outlive the call
        self._looped: list[object] = []  # containers that a loop is walking over

    def _note(self, code: str, message: str, hint: str) -> None:
        violation = Violation(self.line, code, message, hint)
        if violation not in self.violations:
            self.violations.append(violation)

    def _stop(self, code: str, message: str, hint: str) -> Stop:
        return Stop(Violation(self.line, code, message, hint))

    def _step(self, node: ast.AST) -> None:
        self.line = getattr(node, "lineno", self.line)
        self._steps += 1
        if self._steps > MAX_STEPS:
            message = f"the program takes more than {MAX_STEPS} steps, loops and helpers counted as often as they run."
            raise self._stop("R110", message, "vectorise over the last dimension of the tensors")

    def _held(self, container: _Container) -> _Container:
        """The container, if what it holds is not too much."""
        count = elements(container)
        self._steps += count // 8
        if count > MAX_ELEMENTS:
            message = f"a list or dict holds more than {MAX_ELEMENTS} elements, those inside its elements counted."
            raise self._stop("R112", message, "stack tensors instead")
        return container

    def _tensor(self, shared: frozenset[str] = frozenset(), width: int | None = None) -> Tensor:
        """The result of one more tensor operation."""
        self._operations += 1
        if self._operations > MAX_TENSOR_OPERATIONS:
            message = f"the program makes more than {MAX_TENSOR_OPERATIONS} tensor operations, loops counted."
            raise self._stop("R110", message, "vectorise over the last dimension of the tensors")
        return Tensor(shared | self._shared, width)

    @abstractmethod
    def block(self, body: Iterable[ast.stmt], frame: Frame, returned: list[object]) -> str:
        """Follow statements; see `rewards.dry_run`."""

    def _elements(self, value: object) -> Iterator[object]:
        """What a loop over a value sees, while the value must not grow."""
        if not isinstance(value, list | tuple | dict | range | str):
            hint = "loop over a literal tuple, list or dict, or range(<number>); tensors hold all worlds"
            raise self._stop("R110", "the number of passes of this loop is not fixed in the text.", hint)
        self._looped.append(value.holder if isinstance(value, View) else value)
        yield from tuple(value)
        self._looped.pop()

    def _assign(self, target: ast.expr, value: object, frame: Frame) -> None:
        self._step(target)
        if isinstance(target, ast.Name):
            frame.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            parts = list(value) if isinstance(value, list | tuple) else []
            for index, item in enumerate(target.elts):
                whole = value if isinstance(value, Tensor) else OTHER
                if isinstance(value, Shape):
                    whole = Number(SIZE_BITS)
                self._assign(item, parts[index] if index < len(parts) else whole, frame)
        elif isinstance(target, ast.Subscript):
            holder = self.value(target.value, frame)
            place = self.value(target.slice, frame)
            self._refuse_write(holder)
            if isinstance(holder, list) and isinstance(target.slice, ast.Slice):
                self._note("R109", "a slice of a list cannot be assigned.", "build a new list")
            if isinstance(holder, dict) and isinstance(place, str | int):
                if place not in holder:
                    self._refuse_growth(holder)
                holder[place] = value
                self._held(holder)
            elif isinstance(holder, list) and isinstance(place, int) and -len(holder) <= place < len(holder):
                holder[place] = value
                self._held(holder)

    def _refuse_write(self, holder: object) -> None:
        if isinstance(holder, Tensor) and holder.shares:
            name = min(holder.shares)
            code = "R117" if name == CONSTANT else "R109"
            self._note(code, f"this would change {name} in place.", "make a new tensor, for example with .clone()")
        if isinstance(holder, list | dict) and id(holder) in self._outer:
            hint = "build the value inside the function and return it"
            self._note("R117", "this would change a list or dict that outlives the call.", hint)

    def _refuse_growth(self, holder: list[object] | dict[object, object]) -> None:
        if any(item is holder for item in self._looped):
            message = "this would change a list or dict while a loop goes over it."
            raise self._stop("R110", message, "write into another list or dict")
        if len(holder) >= MAX_LENGTH:
            raise self._stop("R112", f"a list or dict grows beyond {MAX_LENGTH} elements.", "vectorise with torch")

    # -- expressions --------------------------------------------------------------------------------

    def value(self, node: ast.expr, frame: Frame) -> object:
        """What stands for the value of an expression."""
        self._step(node)
        follow = getattr(self, f"_{type(node).__name__}", None)
        if follow is not None:
            return follow(node, frame)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child, frame)
        return OTHER

    def _Constant(self, node: ast.Constant, _: Frame) -> object:
        return node.value if node.value is None or isinstance(node.value, bool | int | float | str) else OTHER

    def _Name(self, node: ast.Name, frame: Frame) -> object:
        holder = frame.find(node.id)
        if holder is not None:
            return holder.names[node.id]
        path = self._bindings.get(node.id) or f"builtins.{node.id}"
        return Number() if path.startswith("math.") and path[5:] in ("pi", "e", "tau") else Other(path)

    def _Tuple(self, node: ast.Tuple, frame: Frame) -> object:
        return self._held(tuple(self.value(item, frame) for item in node.elts))

    def _List(self, node: ast.List, frame: Frame) -> object:
        return self._held([self.value(item, frame) for item in node.elts])

    def _Dict(self, node: ast.Dict, frame: Frame) -> object:
        made: dict[object, object] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            name = self.value(key, frame) if key is not None else None
            if key is None:
                merged = self.value(item, frame)
                made.update(merged if isinstance(merged, dict) else {})
                continue
            made[name if isinstance(name, str | int | float) else len(made)] = self.value(item, frame)
        return self._held(made)

    def _Lambda(self, node: ast.Lambda, frame: Frame) -> object:
        return Function(node, frame)

    def _JoinedStr(self, node: ast.JoinedStr, frame: Frame) -> object:
        text = ""
        for part in node.values:
            piece = self.value(part.value if isinstance(part, ast.FormattedValue) else part, frame)
            if not isinstance(piece, str | int | float | Number):
                hint = "put texts and whole numbers into an f-string, nothing else"
                self._note("R116", "only a text or a number may stand in an f-string.", hint)
                return OTHER
            text += "0" * 10 if isinstance(piece, Number) else str(piece)
        if len(text) > MAX_LENGTH:
            raise self._stop("R116", f"a text grows beyond {MAX_LENGTH} letters.", "text is only for component names")
        return text

    def _IfExp(self, node: ast.IfExp, frame: Frame) -> object:
        taken = truth(self.value(node.test, frame))
        if taken is not None:
            return self.value(node.body if taken else node.orelse, frame)
        return either(self.value(node.body, frame), self.value(node.orelse, frame))

    def _BoolOp(self, node: ast.BoolOp, frame: Frame) -> object:
        result = self.value(node.values[0], frame)
        for item in node.values[1:]:
            taken = truth(result)
            if taken is not None and taken == isinstance(node.op, ast.Or):
                return result
            after = self.value(item, frame)
            result = after if taken is not None else either(result, after)
        return result

    def _BinOp(self, node: ast.BinOp, frame: Frame) -> object:
        left, right = self.value(node.left, frame), self.value(node.right, frame)
        self.line = node.lineno
        return self._binary(type(node.op).__name__, left, right)

    def _binary(self, name: str, left: object, right: object) -> object:
        if isinstance(left, str) or isinstance(right, str):
            self._note("R116", "arithmetic on text is not allowed.", 'use an f-string, as in f"name_{i}"')
            return OTHER
        try:
            result = binary(name, left, right)
        except TooLargeError as error:
            hint = "keep numbers and lists small; use torch for large ones"
            raise self._stop("R112", f"{error} grows beyond measure here.", hint) from None
        if isinstance(result, list | tuple):
            return self._held(result)
        return self._tensor(width=result.width) if isinstance(result, Tensor) else result

    def _UnaryOp(self, node: ast.UnaryOp, frame: Frame) -> object:
        value = self.value(node.operand, frame)
        if isinstance(node.op, ast.Not):
            taken = truth(value)
            return Number(1) if taken is None else not taken
        if isinstance(node.op, ast.USub) and isinstance(value, bool | int | float):
            return -value
        if isinstance(value, Tensor) and not isinstance(node.op, ast.UAdd):  # +x is x itself
            return self._tensor(width=value.width)
        return value

    def _Compare(self, node: ast.Compare, frame: Frame) -> object:
        values = [self.value(item, frame) for item in (node.left, *node.comparators)]
        kind = type(node.ops[0]).__name__
        if kind in ("Is", "IsNot") and not any(isinstance(item, Other) for item in values):
            return (values[0] is values[1]) == (kind == "Is")
        if any(isinstance(item, Tensor) for item in values):
            return self._tensor() if kind not in ("In", "NotIn") else Number(1)
        plain = all(isinstance(item, bool | int | float | str) for item in values)
        if plain and len(values) == 2 and kind in ("Eq", "NotEq"):
            return (values[0] == values[1]) == (kind == "Eq")
        if len(values) == 2 and kind in ("Lt", "Gt", "LtE", "GtE"):
            return ordered(kind, *values)
        if kind in ("In", "NotIn") and isinstance(values[0], str | int) and isinstance(values[1], dict):
            return (values[0] in values[1]) == (kind == "In")
        return Number(1)

    def _Attribute(self, node: ast.Attribute, frame: Frame) -> object:
        value = self.value(node.value, frame)
        if isinstance(value, Tensor):
            if node.attr == "shape":
                return Shape(value.width)
            if node.attr in ("ndim", "dtype", "device"):
                return Number(8) if node.attr == "ndim" else OTHER
            return Tensor(value.shares)
        if isinstance(value, Other) and value.path:
            path = f"{value.path}.{node.attr}"
            return Number() if path in ("math.pi", "math.e", "math.tau", "torch.pi", "torch.e") else Other(path)
        return OTHER

    def _Subscript(self, node: ast.Subscript, frame: Frame) -> object:
        value, place = self.value(node.value, frame), self.value(node.slice, frame)
        if isinstance(value, Tensor):
            return Tensor(value.shares, value.width if isinstance(node.slice, ast.Slice) else None)
        if isinstance(value, Shape):
            return value.width if place in (1, -1) and value.width is not None else Number(SIZE_BITS)
        if isinstance(value, dict) and isinstance(place, str | int) and place in value:
            return value[place]
        if isinstance(value, list | tuple | str | range):
            if isinstance(node.slice, ast.Slice):
                return value
            if isinstance(place, int) and -len(value) <= place < len(value):
                return value[place]
        if isinstance(value, dict | list | tuple) and value:
            items = list(value.values() if isinstance(value, dict) else value)
            found = shares(items)
            return Tensor(found) if any(isinstance(item, Tensor) for item in items) else items[0]
        return OTHER

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, frame: Frame) -> object:
        made: list[object] = []
        pairs: dict[object, object] = {}

        def passes(depth: int, inner: Frame) -> None:
            if depth < len(node.generators):
                generator = node.generators[depth]
                for element in self._elements(self.value(generator.iter, inner)):
                    self._assign(generator.target, element, inner)
                    if all(truth(self.value(test, inner)) is not False for test in generator.ifs):
                        passes(depth + 1, inner)
            elif isinstance(node, ast.DictComp):
                key = self.value(node.key, inner)
                pairs[key if isinstance(key, str | int | float) else len(pairs)] = self.value(node.value, inner)
            else:
                made.append(self.value(node.elt, inner))

        passes(0, Frame(frame))
        return self._held(pairs) if isinstance(node, ast.DictComp) else self._held(made)

    _ListComp = _GeneratorExp = _DictComp = _comprehension
