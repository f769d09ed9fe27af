"""Follows the calls of a reward program with stand-ins for its tensors; see `rewards.dry_run`.

A helper is followed into with its arguments. A function of torch gives a new tensor token, which shares memory with
what it was given if it is a view; the sizes that it is told are bounded. The few builtins are done on what is known.
"""

import ast
from collections.abc import Mapping

from rewards import allowed
from rewards.dry_expressions import DryExpressions
from rewards.stand_ins import (
    MAX_LENGTH,
    OTHER,
    SIZE_BITS,
    Frame,
    Function,
    Number,
    Other,
    Shape,
    Tensor,
    View,
    arange_count,
    either,
    shares,
)

MAX_CALL_DEPTH = 16
"""Most calls of helpers within each other."""
MAX_SIZE = 4096
"""Most numbers per world of a tensor whose size is written in the program."""

_SIZED = allowed.names(
    "zeros ones full arange linspace eye new_zeros new_ones new_full repeat tile expand broadcast_to"
)
_FIRST_IS_SIZE = frozenset(("full", "new_full"))
_CONTAINER_METHODS: dict[type, tuple[str, ...]] = {
    list: ("append", "extend"),
    dict: ("keys", "values", "items", "get", "update"),
}
_COUNTS = frozenset(("size", "dim", "ndimension", "numel"))
_KEEPS_WIDTH = allowed.names("clone float to abs square clamp detach contiguous")
_GROUPS = (list, tuple, dict, range)


class DryCalls(DryExpressions):
    """Follows calls."""

    def _Call(self, node: ast.Call, frame: Frame) -> object:
        keywords = {item.arg or "": item.value for item in node.keywords}
        if isinstance(node.func, ast.Attribute):
            holder = self.value(node.func.value, frame)
            is_module = isinstance(holder, Other) and holder.path in allowed.MODULES
            function = Other(f"{holder.path}.{node.func.attr}") if is_module else None  # type: ignore[union-attr]
        else:
            holder, function = None, self.value(node.func, frame)
        arguments = [self.value(item, frame) for item in node.args]
        named = {name: self.value(item, frame) for name, item in keywords.items()}
        self.line = node.lineno
        if function is None and isinstance(node.func, ast.Attribute):
            return self._method(holder, node.func.attr, arguments, named)
        if isinstance(function, Function):
            return self.call(function, arguments, named, node)
        if isinstance(function, Other) and function.path.startswith("builtins."):
            return self._builtin(function.path[9:], arguments)
        if isinstance(function, Other) and function.path.startswith("math."):
            return Number()
        if not isinstance(function, Other) or not function.path:
            raise self._stop("R118", "it cannot be told which function is called here.", "call it by its own name")
        foreign = sorted(set(named) - allowed.KEYWORDS)
        if foreign:
            self._note("R109" if foreign[0] in ("out", "inplace") else "R118",
                       f"the keyword '{foreign[0]}=' is not allowed.", "assign the result instead")  # fmt: skip
        name = function.path.rsplit(".", 1)[-1]
        self._refuse_size(name, arguments, named)
        given = shares([*arguments, *named.values()]) if name in allowed.VIEWS else frozenset[str]()
        return self._tensor(given)

    def call(self, function: Function, arguments: list[object], named: Mapping[str, object], node: ast.AST) -> object:
        """Follow a helper with these arguments; what stands for its result."""
        if self._depth >= MAX_CALL_DEPTH:
            message = f"more than {MAX_CALL_DEPTH} calls are nested here."
            raise self._stop("R111", message, "write the steps out; a function may not call itself")
        frame = Frame(function.frame)
        spec = function.node.args
        parameters = [*spec.posonlyargs, *spec.args]
        defaults = [OTHER] * (len(parameters) - len(spec.defaults))
        given = [*defaults, *(self.value(item, function.frame) for item in spec.defaults)]
        for parameter, value in zip(parameters, given, strict=True):
            frame.names[parameter.arg] = value
        for parameter, value in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            frame.names[parameter.arg] = OTHER if value is None else self.value(value, function.frame)
        frame.names.update({item.arg: value for item, value in zip(parameters, arguments, strict=False)})
        frame.names.update({name: value for name, value in named.items() if name in frame.names})
        self._depth += 1
        if isinstance(function.node, ast.Lambda):
            result = self.value(function.node.body, frame)
        else:
            returned: list[object] = []
            self.block(function.node.body, frame, returned)
            result = returned[0] if returned else None
            for other in returned[1:]:
                result = either(result, other)
        self._depth -= 1
        self.line = getattr(node, "lineno", self.line)
        return result

    def _method(self, holder: object, name: str, arguments: list[object], named: Mapping[str, object]) -> object:
        if isinstance(holder, list | dict | tuple | str):
            return self._container_method(holder, name, arguments, named)
        self._refuse_size(name, arguments, named)
        if not isinstance(holder, Tensor):
            return OTHER
        if name in _COUNTS:
            is_width = name == "size" and arguments in ([1], [-1]) and holder.width is not None
            return holder.width if is_width else Shape(holder.width) if name == "size" and not arguments else Number(32)
        seen = shares([holder, *arguments]) if name in allowed.VIEWS else frozenset[str]()
        return self._tensor(seen, holder.width if name in _KEEPS_WIDTH else None)

    def _container_method(
        self, holder: object, name: str, arguments: list[object], named: Mapping[str, object]
    ) -> object:
        if name not in _CONTAINER_METHODS.get(type(holder), ()):
            message = f"the method '.{name}()' is not available for a {type(holder).__name__}."
            self._note("R107", message, "use tensors, or build a new list")
            return OTHER
        first = arguments[0] if arguments else None
        if isinstance(holder, list):
            self._refuse_write(holder)
            self._refuse_growth(holder)
            added = [first] if name == "append" else list(first) if isinstance(first, list | tuple | dict) else []
            if len(holder) + len(added) > MAX_LENGTH:
                raise self._stop("R112", f"a list grows beyond {MAX_LENGTH} elements.", "vectorise with torch")
            holder.extend(added)
            self._held(holder)
            return None
        assert isinstance(holder, dict)
        if name == "update":
            self._refuse_write(holder)
            self._refuse_growth(holder)
            holder.update(first if isinstance(first, dict) else {})
            holder.update(named)
            self._held(holder)
            return None
        if name == "get":
            default = arguments[1] if len(arguments) > 1 else None
            return holder.get(first, default) if isinstance(first, str | int) else OTHER
        return View({"keys": holder.keys(), "values": holder.values(), "items": holder.items()}[name], holder)

    def _builtin(self, name: str, arguments: list[object]) -> object:
        if name == "range":
            whole = [item for item in arguments if isinstance(item, int)]
            if not 1 <= len(whole) == len(arguments) <= 3 or whole[2:] == [0]:
                return OTHER
            first, last, step = (0, whole[0], 1) if len(whole) == 1 else (*whole, 1)[:3]
            if abs(last - first) // abs(step) > MAX_LENGTH:
                raise self._stop("R110", f"a range of more than {MAX_LENGTH} numbers.", "use torch.arange")
            return range(first, last, step)
        first = arguments[0] if arguments else None
        if name == "len":
            return len(first) if isinstance(first, (*_GROUPS, str)) else Number(SIZE_BITS)
        if name in ("list", "tuple"):
            items = list(first) if isinstance(first, _GROUPS) else []
            return tuple(items) if name == "tuple" else items
        if name == "dict":
            return dict(first) if isinstance(first, dict) else {}
        if name == "enumerate":
            return [(index, item) for index, item in enumerate(first)] if isinstance(first, _GROUPS) else OTHER
        if name == "reversed":
            return list(first)[::-1] if isinstance(first, _GROUPS) else OTHER
        if name == "zip":
            lengths = [len(item) for item in arguments if isinstance(item, _GROUPS)]
            columns = [
                list(item) if isinstance(item, _GROUPS) else [item] * min(lengths, default=0) for item in arguments
            ]
            return list(zip(*columns, strict=False))
        items: list[object] = [*first] if isinstance(first, _GROUPS) else arguments
        if any(isinstance(item, str) for item in items):
            self._note("R116", f"'{name}' of a text is not allowed.", "write the number itself")
            return OTHER
        return self._reduced(name, items)

    def _reduced(self, name: str, items: list[object]) -> object:
        """sum, min, max, abs, round, float, int, bool of what was given."""
        if any(isinstance(item, Tensor) for item in items):
            return Tensor(shares(items) if name in ("min", "max") else self._shared)
        if name == "sum":
            total: object = 0
            for item in items:
                total = self._binary("Add", total, item)
            return total
        result = items[0] if items else Number()
        for item in items[1:]:
            result = either(result, item)
        if name == "int" or (name == "round" and len(items) == 1):
            return int(result) if isinstance(result, int) else Number(1024)
        return Number() if name == "float" or not isinstance(result, bool | int | float) else result

    def _refuse_size(self, name: str, arguments: list[object], named: Mapping[str, object]) -> None:
        if name not in _SIZED:
            return
        sizes = arguments[:1] if name in _FIRST_IS_SIZE else arguments
        sizes = [*sizes, *(value for key, value in named.items() if key in ("size", "steps", "end", "n", "repeats"))]
        if name == "arange":
            count = arange_count(sizes)
        else:
            numbers = [item for size in sizes for item in (size if isinstance(size, list | tuple) else (size,))]
            count = 1
            for item in numbers:
                whole = int(item) if isinstance(item, int) or (isinstance(item, float) and abs(item) < 1e30) else 1
                count = min(count * max(abs(whole), 1), 10**40)
            count = count * count if name == "eye" and len(numbers) == 1 else count
        if count > MAX_SIZE:
            message = f"this makes a tensor of {count if count < 10**12 else 'far too many'} numbers."
            self._note("R119", message, f"stay below {MAX_SIZE} numbers; take sizes from the signals' shapes")
