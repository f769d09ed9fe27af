"""Which attributes of an environment hold one row a world, and how wide they are, guessed from how they are made.

A guess in one direction: what it does not understand it leaves out, or gives the width "?".
"""

from __future__ import annotations

import ast

from tasks.isaaclab.prune import targets, written_place

PER_WORLD = "(N"
UNKNOWN_WIDTH = "(N, ?)"
_MAKERS = ("zeros", "ones", "empty", "full", "rand", "randn")
_LIKE = ("zeros_like", "ones_like", "empty_like", "clone", "to", "float", "clamp", "abs", "clip", "sin", "cos", "tanh",
         "detach", "contiguous", "normalize", "quat_conjugate")  # fmt: skip


class Shapes:
    """Shapes of attributes of `self`, gathered class by class."""

    def __init__(self, data: dict[str, dict[str, str]]) -> None:
        """`data`: attribute that is a thing of the scene -> field of its data -> shape."""
        self.data = data
        self.attributes: dict[str, str] = {}
        self.origin: dict[str, str] = {}
        """Attribute -> what it is, where it is a field of a thing's data as it stands."""

    def read(self, cls: ast.ClassDef) -> None:
        """Take in the assignments of a class's methods."""
        for function in cls.body:
            if isinstance(function, ast.FunctionDef):
                local: dict[str, str] = {"actions": UNKNOWN_WIDTH}
                for node in ast.walk(function):
                    if isinstance(node, ast.Assign):
                        for target in node.targets:
                            self._assign(target, node.value, local)

    def _assign(self, target: ast.expr, value: ast.expr, local: dict[str, str]) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for one, its in zip(target.elts, value.elts, strict=True):
                self._assign(one, its, local)
            return
        shape = self.shape(value, local)
        if isinstance(target, ast.Tuple):
            shape = UNKNOWN_WIDTH if shape else None
        node = ast.Assign([target], value)
        for one in targets(node):
            place = written_place(one)
            if isinstance(one, ast.Subscript) or place is None or shape is None:
                continue
            if place.startswith("self."):
                self._keep(place[5:], shape, value)
            else:
                local[place] = shape

    def _keep(self, name: str, shape: str, value: ast.expr) -> None:
        if self.attributes.get(name, UNKNOWN_WIDTH) == UNKNOWN_WIDTH:
            self.attributes[name] = shape
        text = ast.unparse(value)
        if text.startswith("self.") and ".data." in text and text.replace(".", "").replace("_", "").isalnum():
            self.origin[name] = f"{text[5:]}"

    def shape(self, node: ast.expr, local: dict[str, str]) -> str | None:
        """The shape of an expression; None where it has no row for each world, or is not understood."""
        if isinstance(node, ast.Name):
            return local.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Subscript):
            return self._item(node, local)
        if isinstance(node, ast.BinOp):
            sides = [self.shape(node.left, local), self.shape(node.right, local)]
            known = [side for side in sides if side]
            return next((side for side in known if side != UNKNOWN_WIDTH), known[0] if known else None)
        if isinstance(node, ast.UnaryOp):
            return self.shape(node.operand, local)
        return self._call(node, local) if isinstance(node, ast.Call) else None

    def _attribute(self, node: ast.Attribute) -> str | None:
        parts = ast.unparse(node).split(".")
        if len(parts) == 4 and parts[0] == "self" and parts[2] == "data":
            return self.data.get(parts[1], {}).get(parts[3], UNKNOWN_WIDTH if parts[1] in self.data else None)
        if parts == ["self", "scene", "env_origins"]:
            return "(N, 3)"
        return self.attributes.get(parts[1]) if len(parts) == 2 and parts[0] == "self" else None

    def _item(self, node: ast.Subscript, local: dict[str, str]) -> str | None:
        inner = self.shape(node.value, local)
        first, *others = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        whole = isinstance(first, ast.Slice) and first.lower is None and first.upper is None
        if inner is None or not (whole or ast.unparse(first) == "..."):
            return None
        if len(others) == 1 and whole and isinstance(others[0], ast.Slice):
            low, high = (getattr(end, "value", None) for end in (others[0].lower or ast.Constant(0), others[0].upper))
            if isinstance(low, int) and isinstance(high, int):
                return f"(N, {high - low})"
        return UNKNOWN_WIDTH

    def _call(self, node: ast.Call, local: dict[str, str]) -> str | None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if owner is not None and ast.unparse(owner) == "torch" and name in _MAKERS:
            return _made(node)
        if name == "repeat" and owner is not None:
            width = _length(owner)
            by_worlds = any("num_envs" in ast.unparse(argument) for argument in node.args)
            return (f"(N, {width})" if width else UNKNOWN_WIDTH) if by_worlds else None
        if name.startswith("find_"):
            return None
        inside = [owner] if owner is not None and ast.unparse(owner) != "torch" else []
        shapes = [self.shape(part, local) for part in [*inside, *node.args]]
        if name in _LIKE:
            return next((shape for shape in shapes if shape), None)
        return UNKNOWN_WIDTH if any(shapes) else None


def _made(node: ast.Call) -> str | None:
    sizes = node.args[0].elts if node.args and isinstance(node.args[0], ast.Tuple) else node.args
    if not sizes or ast.unparse(sizes[0]).split(".")[-1] != "num_envs":
        return None
    rest = [size.value if isinstance(size, ast.Constant) else None for size in sizes[1:]]
    width = 1
    for size in rest:
        if not isinstance(size, int):
            return UNKNOWN_WIDTH
        width *= size
    return f"(N, {width})"


def _length(node: ast.expr) -> int | None:
    for part in ast.walk(node):
        if isinstance(part, ast.List | ast.Tuple) and all(
            not isinstance(item, ast.List | ast.Tuple) for item in part.elts
        ):
            return len(part.elts) or None
    return None
