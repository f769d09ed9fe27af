"""Takes statements out of syntax trees: those that speak of a reward, and those whose results nothing reads any more.

What is left is for reading, not for running. A statement that cannot be cut in two goes as a whole, so that nothing of
it stays. It does not know which functions belong to a task; `tasks.isaaclab.source` does.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from tasks.isaaclab.hidden import NOT_TOLD, draws, says_reward, speaks

_CHANGING = frozenset((
    "append", "extend", "update", "insert", "sort", "clear", "add", "fill_", "zero_", "copy_", "uniform_",
))  # fmt: skip
"""Methods that change their object; called for nothing else, they read nothing of it."""

Gone = Callable[[ast.AST], bool]


def without_reward(node: ast.stmt, secrets: frozenset[str]) -> ast.stmt | None:
    """A statement without what speaks of a reward, of logging or of drawing; None where nothing is left."""
    node = _Keywords().visit(node)
    kept = _pruned([node], lambda part: speaks(part, secrets) or draws(part))
    return kept[0] if kept else None


class _Keywords(ast.NodeTransformer):
    """Takes `debug_vis=True` and its like out of calls."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [word for word in node.keywords if word.arg not in NOT_TOLD]
        return self.generic_visit(node)


def _pruned(body: list[ast.stmt], gone: Gone) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for place, node in enumerate(body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            new = _definition(node, gone)
        elif isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try):
            new = _compound(node, gone)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and place:
            new = None  # a string below an assignment: it would seem to describe the one above what was cut
        else:
            new = None if gone(node) else node
        if new is not None:
            kept.append(new)
    return kept


def _definition(node: ast.FunctionDef | ast.ClassDef, gone: Gone) -> ast.stmt | None:
    heads: list[ast.AST] = [ast.Name(node.name, ast.Load()), *node.decorator_list]
    heads += [node.args] if isinstance(node, ast.FunctionDef) else [*node.bases, *node.keywords]
    if any(gone(head) for head in heads):
        return None
    documented = ast.get_docstring(node) is not None
    node.body = _pruned(node.body, gone)
    if not node.body or (documented and len(node.body) == 1 and ast.get_docstring(node) is not None):
        node.body = [*node.body, ast.Pass()]
    return node


def _compound(node: ast.If | ast.For | ast.While | ast.With | ast.Try, gone: Gone) -> ast.stmt | None:
    heads: list[ast.AST] = []
    for part in ("test", "target", "iter"):
        if isinstance(value := getattr(node, part, None), ast.AST):
            heads.append(value)
    heads += getattr(node, "items", [])
    if any(gone(head) for head in heads):
        return None
    node.body = _pruned(node.body, gone)
    if isinstance(node, ast.Try):
        for handler in node.handlers:
            handler.body = _pruned(handler.body, gone) or [ast.Pass()]
        node.finalbody = _pruned(node.finalbody, gone)
    if hasattr(node, "orelse"):
        node.orelse = _pruned(node.orelse, gone)
        if node.orelse and not node.body:
            node.body = [ast.Pass()]
    return node if node.body else None


def reads(tree: ast.AST) -> Iterator[ast.Name | ast.Attribute]:
    """Names and attributes whose values are used. `x[i] = v`, `x += v` and `x.append(v)` use none of x, annotations
    nothing at all."""
    if isinstance(tree, ast.Assign | ast.AugAssign | ast.AnnAssign):
        for target in targets(tree):
            yield from _target_reads(target)
        if tree.value is not None:
            yield from reads(tree.value)
        return
    if isinstance(tree, ast.Expr) and _changed(tree) is not None:
        call = tree.value
        assert isinstance(call, ast.Call)
        for part in [*call.args, *call.keywords]:
            yield from reads(part)
        return
    if isinstance(tree, ast.Name | ast.Attribute) and isinstance(tree.ctx, ast.Load):
        yield tree
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from reads(child)


def targets(node: ast.Assign | ast.AugAssign | ast.AnnAssign) -> list[ast.expr]:
    """What an assignment writes to, tuples taken apart."""
    written = node.targets if isinstance(node, ast.Assign) else [node.target]
    found: list[ast.expr] = []
    while written:
        first, *written = written
        if isinstance(first, ast.Tuple | ast.List):
            written = [*first.elts, *written]
        else:
            found.append(first.value if isinstance(first, ast.Starred) else first)
    return found


def written_place(target: ast.expr) -> str | None:
    """ "x" or "self.x" where a target is that or an item of it; None for anything else."""
    while isinstance(target, ast.Subscript):
        target = target.value
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return f"self.{target.attr}"
    return None


def drop_unread(function: ast.FunctionDef, read_attributes: set[str]) -> None:
    """Take out of a function, until nothing changes, assignments to its own names that it never reads, and to
    attributes of `self` that are not in `read_attributes`."""
    while True:
        names = {node.id for node in reads(function) if isinstance(node, ast.Name)}
        names |= {
            name for node in ast.walk(function) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names
        }

        def unread(node: ast.AST, names: set[str] = names) -> bool:
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                places = [written_place(target) for target in targets(node)]
            elif isinstance(node, ast.Expr):
                places = [_changed(node)]
            else:
                return False
            return all(
                place is not None
                and (place[5:] not in read_attributes if place.startswith("self.") else place not in names)
                for place in places
            )

        before = ast.dump(function)
        function.body = _pruned(function.body, unread) or [ast.Pass()]
        if ast.dump(function) == before:
            return


def clean_docstring(node: ast.stmt) -> None:
    """Take a docstring away that speaks of a reward, here and in what is defined inside."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            doc = ast.get_docstring(inner)
            if doc is not None and says_reward(doc):
                inner.body = inner.body[1:] or [ast.Pass()]


def _changed(node: ast.Expr) -> str | None:
    call = node.value
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _CHANGING:
        return written_place(call.func.value)
    return None


def _target_reads(target: ast.expr) -> Iterator[ast.Name | ast.Attribute]:
    while isinstance(target, ast.Subscript):
        yield from reads(target.slice)
        target = target.value
    if isinstance(target, ast.Attribute) and not isinstance(target.value, ast.Name):
        yield from reads(target.value)  # self.a.b = v changes an object that somebody else reads
