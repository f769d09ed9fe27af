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
MAX_LOOKUPS = 100
"""Most steps from a loop to the literal that bounds it."""

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
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.Name):
            yield item.id
        elif not _is_no_tensor(item):
            todo.extend(ast.iter_child_nodes(item))


def _is_no_tensor(node: ast.AST) -> bool:
    """Whether an expression is no tensor whatever it is computed from."""
    if isinstance(node, ast.Attribute):
        return node.attr in _NOT_TENSORS
    if isinstance(node, ast.Compare):
        return isinstance(node.ops[0], ast.Is | ast.IsNot | ast.In | ast.NotIn)
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        return name in _COUNTING
    return isinstance(node, ast.Lambda | ast.Constant)


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
    return _Bounds(scope, dims).passes(node)


class _Bounds:
    """Resolves loops and whole numbers through names, in at most `MAX_LOOKUPS` steps: a name can lead to itself."""

    def __init__(self, scope: Scope, dims: Mapping[str, int]) -> None:
        self._scope = scope
        self._dims = dims
        self._left = MAX_LOOKUPS

    def passes(self, node: ast.expr) -> int | None:
        self._left -= 1
        if self._left < 0:
            return None
        if isinstance(node, ast.Tuple | ast.List):
            return None if any(isinstance(item, ast.Starred) for item in node.elts) else len(node.elts)
        if isinstance(node, ast.Dict):
            return None if None in node.keys else len(node.keys)
        if isinstance(node, ast.Name):
            return self._of_name(node.id)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and len(node.generators) == 1:
            return self.passes(node.generators[0].iter)
        if isinstance(node, ast.Call):
            return self._of_call(node)
        return None

    def _of_name(self, name: str) -> int | None:
        value = self._scope.value(name)
        if isinstance(value, ast.Tuple | ast.List | ast.Dict):
            bound = self.passes(value)
            return bound if isinstance(value, ast.Tuple) or bound is None else max(bound, GROWN_LENGTH)
        if isinstance(value, ast.ListComp | ast.DictComp):
            bound = self.passes(value)
            return GROWN_LENGTH if bound is None else max(bound, 1)
        return None

    def _of_call(self, node: ast.Call) -> int | None:
        if node.keywords and not (isinstance(node.func, ast.Name) and node.func.id in ("zip", "enumerate")):
            return None
        if isinstance(node.func, ast.Attribute):
            known = node.func.attr in ("items", "keys", "values") and not node.args
            return self.passes(node.func.value) if known else None
        name = node.func.id if isinstance(node.func, ast.Name) and not self._scope.knows(node.func.id) else ""
        if name == "range":
            numbers = [self._whole(item) for item in node.args]
            if not 1 <= len(numbers) <= 3 or any(number is None for number in numbers) or numbers[2:] == [0]:
                return None
            whole = [number for number in numbers if number is not None]
            return min(len(range(*whole)), 10**9) if max(map(abs, whole)) < 2**31 else 10**9
        bounds = [self.passes(item) for item in node.args]
        if name in ("enumerate", "reversed", "list", "tuple", "dict") and bounds:
            return bounds[0]
        if name == "zip" and bounds:
            return min((bound for bound in bounds if bound is not None), default=None)
        return None

    def _whole(self, node: ast.expr) -> int | None:
        """The value of a whole number written out, named by a constant, or read from the width of a signal."""
        self._left -= 1
        if self._left < 0:
            return None
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._whole(node.operand)
            return None if number is None else -number
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.FloorDiv):
            left, right = self._whole(node.left), self._whole(node.right)
            if left is None or right is None or abs(left) > 2**31 or abs(right) > 2**31:
                return None
            if isinstance(node.op, ast.FloorDiv):
                return left // right if right else None
            return left + right if isinstance(node.op, ast.Add) else left - right
        if isinstance(node, ast.Name):
            value = self._scope.value(node.id)
            return None if value is None else self._whole(value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args:
            counted = node.args[0]
            return None if isinstance(counted, ast.Name) and counted.id in self._dims else self.passes(counted)
        return _width(node, self._dims)


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
