"""What names mean inside a reward program: scopes, aliases, which values are tensors, how long a loop can be.

All of it is read from the syntax tree without running anything, and all of it is approximate on purpose:
where the answer is unknown a tensor counts as none (the trial sees the rest) and a loop counts as unbounded
(it is refused).
"""

import ast
from collections.abc import Iterator, Mapping

GROWN_LENGTH = 32
"""Length assumed for a list or dict that is built step by step: `rewards.trial` admits at most 32
components."""

_NOT_TENSORS = frozenset(("shape", "ndim", "dtype", "device"))
_COUNTING = frozenset(("len", "range", "size", "dim", "ndimension", "numel", "keys"))


class Scope:
    """Names of the module, of one function or of one comprehension."""

    def __init__(
        self,
        parent: "Scope | None",
        names: frozenset[str],
        params: frozenset[str] = frozenset(),
        tensors: frozenset[str] = frozenset(),
        imported: frozenset[str] = frozenset(),
    ) -> None:
        self.parent = parent
        self.names = names | params
        self.params = params
        self.tensors = tensors
        self.imported = imported
        self._values: dict[str, ast.expr] = {}

    def knows(self, name: str) -> bool:
        """Whether the name is assigned or defined here or in a scope around this one."""
        return name in self.names or (self.parent is not None and self.parent.knows(name))

    def every_name(self) -> Iterator[str]:
        """All names that can be read here."""
        yield from sorted(self.names)
        if self.parent is not None:
            yield from self.parent.every_name()

    def remember(self, name: str, value: ast.expr) -> None:
        """Note what was assigned to a plain name last."""
        self._values[name] = value

    def value(self, name: str) -> ast.expr | None:
        """The expression assigned last to a name, looked up as Python does."""
        if name in self.names or self.parent is None:
            return self._values.get(name)
        return self.parent.value(name)

    def is_alias(self, name: str) -> bool:
        """Whether the name is another name, or a view, of a tensor that has a name already."""
        source = self._values.get(name)
        root = _root(source) if source is not None else ""
        return bool(root) and root != name and (root in self.tensors or root in self.params)

    def is_argument(self, name: str) -> bool:
        """Whether the name is a parameter, or leads to one through plain names and subscripts."""
        seen: set[str] = set()
        while name and name not in seen:
            seen.add(name)
            source = self._values.get(name)
            if source is None:
                return name in self.params
            name = _root(source)
        return False


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def assigned_names(node: ast.AST) -> frozenset[str]:
    """Names that a module, function or comprehension binds itself, imports left out."""
    names: set[str] = set()
    todo: list[ast.AST] = list(ast.iter_child_nodes(node))
    while todo:
        item = todo.pop()
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
            names.add(item.id)
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(item.name)
        elif not isinstance(item, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp):
            todo.extend(ast.iter_child_nodes(item))
    return frozenset(names)


def is_tensor(node: ast.AST, tensors: frozenset[str]) -> bool:
    """Whether an expression is computed from one of the tensors and is itself no shape, count or identity."""
    return not tensors.isdisjoint(_tensor_mentions(node))


def _tensor_mentions(node: ast.AST) -> Iterator[str]:
    """Names that make an expression a tensor if they are tensors."""
    if isinstance(node, ast.Name):
        yield node.id
        return
    if isinstance(node, ast.Attribute) and node.attr in _NOT_TENSORS:
        return
    if isinstance(node, ast.Lambda | ast.Constant):
        return
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot | ast.In | ast.NotIn):
        return
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in _COUNTING:
            return
    for child in ast.iter_child_nodes(node):
        yield from _tensor_mentions(child)


def tensor_names(function: ast.AST, params: frozenset[str]) -> frozenset[str]:
    """Names inside a function that hold something computed from its parameters, directly or not."""
    tensors = set(params)
    pending = [
        ({item.id for item in ast.walk(target) if isinstance(item, ast.Name)}, set(_tensor_mentions(value)))
        for target, value in _assignments(function)
    ]
    while True:
        reached = [targets for targets, sources in pending if not sources.isdisjoint(tensors)]
        if not reached:
            return frozenset(tensors)
        pending = [pair for pair in pending if pair[1].isdisjoint(tensors)]
        tensors.update(*reached)


def _assignments(function: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(_holder(target), node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign) and node.value is not None:
            yield _holder(node.target), node.value
        elif isinstance(node, ast.For | ast.comprehension):
            yield from _loop_pairs(node.target, node.iter)


def _holder(target: ast.expr) -> ast.expr:
    while isinstance(target, ast.Subscript | ast.Attribute):  # x[i] = y makes x a holder of tensors, not i
        target = target.value
    return target


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Element by element where both sides are written out with the same length."""
    both = isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List)
    if both and len(target.elts) == len(value.elts):  # type: ignore[union-attr]
        yield from zip(target.elts, value.elts, strict=True)  # type: ignore[union-attr]
    else:
        yield target, value


def _loop_pairs(target: ast.expr, iterable: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets of a loop and what they come from: the key of items() and the count of enumerate() are no
    tensors."""
    parts = target.elts if isinstance(target, ast.Tuple) else []
    if isinstance(iterable, ast.Call) and len(parts) >= 2:
        name = iterable.func.id if isinstance(iterable.func, ast.Name) else getattr(iterable.func, "attr", "")
        if name in ("items", "enumerate"):
            yield parts[1], iterable
            return
        if name == "zip" and len(iterable.args) == len(parts):
            yield from zip(parts, iterable.args, strict=True)
            return
    if isinstance(iterable, ast.Tuple | ast.List):
        for element in iterable.elts:
            yield from _pairs(target, element)
        return
    yield target, iterable


def loop_bound(node: ast.expr, scope: Scope, dims: Mapping[str, int]) -> int | None:
    """The most passes a loop over this expression can make, or None if the text does not say."""
    if isinstance(node, ast.Tuple | ast.List):
        return None if any(isinstance(item, ast.Starred) for item in node.elts) else len(node.elts)
    if isinstance(node, ast.Dict):
        return None if None in node.keys else len(node.keys)
    if isinstance(node, ast.Name):
        return _bound_of_name(node.id, scope, dims)
    if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and len(node.generators) == 1:
        return loop_bound(node.generators[0].iter, scope, dims)
    if isinstance(node, ast.Call):
        return _bound_of_call(node, scope, dims)
    return None


def _bound_of_name(name: str, scope: Scope, dims: Mapping[str, int]) -> int | None:
    value = scope.value(name)
    if isinstance(value, ast.Tuple | ast.List | ast.Dict):
        bound = loop_bound(value, scope, dims)
        return bound if isinstance(value, ast.Tuple) or bound is None else max(bound, GROWN_LENGTH)
    if isinstance(value, ast.ListComp | ast.DictComp):
        return GROWN_LENGTH if loop_bound(value, scope, dims) is None else max(loop_bound(value, scope, dims) or 0, 1)
    return None


def _bound_of_call(node: ast.Call, scope: Scope, dims: Mapping[str, int]) -> int | None:
    if node.keywords and not (isinstance(node.func, ast.Name) and node.func.id in ("zip", "enumerate")):
        return None
    if isinstance(node.func, ast.Attribute):
        known = node.func.attr in ("items", "keys", "values") and not node.args
        return loop_bound(node.func.value, scope, dims) if known else None
    name = node.func.id if isinstance(node.func, ast.Name) and not scope.knows(node.func.id) else ""
    if name == "range":
        numbers = [_whole(item, scope, dims) for item in node.args]
        if not 1 <= len(numbers) <= 3 or any(number is None for number in numbers) or numbers[2:] == [0]:
            return None
        whole = [number for number in numbers if number is not None]
        return min(len(range(*whole)), 10**9) if max(map(abs, whole)) < 2**31 else 10**9
    bounds = [loop_bound(item, scope, dims) for item in node.args]
    if name in ("enumerate", "reversed", "list", "tuple", "dict") and bounds:
        return bounds[0]
    if name == "zip" and bounds:
        return min((bound for bound in bounds if bound is not None), default=None)
    return None


def _whole(node: ast.expr, scope: Scope, dims: Mapping[str, int], depth: int = 0) -> int | None:
    """The value of a whole number written out, named by a constant, or read from the width of a signal."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _whole(node.operand, scope, dims, depth)
        return None if number is None else -number
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.FloorDiv):
        left, right = _whole(node.left, scope, dims, depth), _whole(node.right, scope, dims, depth)
        if left is None or right is None or abs(left) > 2**31 or abs(right) > 2**31:
            return None
        if isinstance(node.op, ast.FloorDiv):
            return left // right if right else None
        return left + right if isinstance(node.op, ast.Add) else left - right
    if isinstance(node, ast.Name) and depth < 8:
        value = scope.value(node.id)
        return None if value is None else _whole(value, scope, dims, depth + 1)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args:
        return (
            None
            if isinstance(node.args[0], ast.Name) and node.args[0].id in dims
            else loop_bound(node.args[0], scope, dims)
        )
    return _width(node, dims)


def _width(node: ast.expr, dims: Mapping[str, int]) -> int | None:
    """`x.shape[1]`, `x.shape[-1]`, `x.size(1)`, `x.size(-1)` of a signal."""
    if isinstance(node, ast.Subscript):
        holder, index = node.value, node.slice
        field = "shape"
    elif isinstance(node, ast.Call) and len(node.args) == 1:
        holder, index = node.func, node.args[0]
        field = "size"
    else:
        return None
    if not (isinstance(holder, ast.Attribute) and holder.attr == field and isinstance(holder.value, ast.Name)):
        return None
    if isinstance(index, ast.UnaryOp) and isinstance(index.op, ast.USub):
        last = isinstance(index.operand, ast.Constant) and index.operand.value == 1
    else:
        last = isinstance(index, ast.Constant) and index.value == 1
    return dims.get(holder.value.id) if last else None
