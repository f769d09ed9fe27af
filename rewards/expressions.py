"""Rules for the expressions of a reward program: names, attributes, calls and constants.

The walk over statements is in `rewards.rules`, which builds on this. Nothing is executed or folded.

Types are known only roughly: in the entry point, whatever is computed from an argument counts as a tensor, so
that `float(speed)` is refused here; inside helper functions the trial finds the same mistake.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rewards import allowed
from rewards.scopes import Scope, is_tensor
from tasks.errors import did_you_mean

MAX_NUMBER = 1e30
"""Largest magnitude of a constant: far below float32's largest number, 3.4e38, so that a product stays
finite."""
MAX_EXPONENT = 64
"""Largest constant exponent."""
MAX_GUESSES = 40
"""Most unknown names for which a similar one is searched: the search takes its time."""
MAX_OPTIONS = 300
"""Most names among which a similar one is searched."""

_TEXT = re.compile(r"[A-Za-z0-9_ .,:;>()/-]{0,120}")
_TAKES_NUMBERS = frozenset(("float", "int", "bool", "min", "max", "round"))
_TENSOR_WAY = {
    "min": "torch.minimum",
    "max": "torch.maximum",
    "float": ".float()",
    "int": ".int()",
    "bool": ".bool()",
    "math.pow": "the ** operator",
    "math.fabs": "torch.abs",
}
_ATTRIBUTE_HINT = "take the quantity as an argument of its own; a signal is a tensor without fields"
_FUNCTION_HINT = "only pure tensor functions are available"


@dataclass(frozen=True, order=True)
class Violation:
    """One problem of a program. Codes E1xx: extraction, R1xx: check, T2xx: trial. `line` 0: no line is to
    blame."""

    line: int
    code: str
    message: str
    hint: str


class ExpressionRules(ast.NodeVisitor):
    """Collects the violations of expressions in `violations`, and who calls whom by name in `calls`.

    Args:
        module: scope of the program's top level.
        bindings: imported name -> dotted path (None: annotations only), prelude included.
        dims: name of every signal -> its width.
    """

    def __init__(self, module: Scope, bindings: Mapping[str, str | None], dims: Mapping[str, int]) -> None:
        self.violations: list[Violation] = []
        self.calls: dict[str, set[str]] = {}
        self._bindings = bindings
        self._dims = dims
        self._module = module
        self._scope = module
        self._function = ""
        self._line = 0
        self._guesses = 0

    def add(self, node: ast.AST, code: str, message: str, hint: str) -> None:
        """Record one violation at a node's line (operators have none: then the line of what was visited
        last)."""
        self.violations.append(Violation(getattr(node, "lineno", self._line), code, message, hint))

    def _writes_into(self, node: ast.AST, holder: ast.expr) -> None:
        """Refuse a write into an argument or into anything that outlives the call."""
        while isinstance(holder, ast.Subscript | ast.Attribute):
            holder = holder.value
        if not isinstance(holder, ast.Name):
            self.add(node, "R109", "writing into this expression is not allowed.", "write into a local variable")
        elif self._scope.is_argument(holder.id):
            hint = f"use torch.where, or write into {holder.id}.clone()"
            message = f"writing into '{holder.id}' would change an argument in place."
            self.add(node, "R109", message, hint)
        elif holder.id not in self._scope.names and self._scope is not self._module:
            hint = "build the value inside the function and return it"
            message = f"writing into '{holder.id}', which outlives the call, is not allowed."
            self.add(node, "R117", message, hint)

    # -- names, attributes, calls -------------------------------------------------------------------

    def _path(self, node: ast.AST) -> str:
        """Dotted path of an expression inside the allowed modules, with import aliases resolved; "" if it is
        none."""
        root, _, rest = allowed.dotted(node).partition(".")
        base = self._bindings.get(root) if root and not self._scope.knows(root) else None
        return f"{base}.{rest}" if base and rest else base or ""

    def _private(self, node: ast.AST, name: str) -> bool:
        if not name.startswith("__"):
            return False
        self.add(node, "R106", f"the name '{name}' is not allowed.", "names that begin with '__' are not available")
        return True

    def _rebinds(self, node: ast.AST, name: str) -> None:
        if self._bindings.get(name) and not (name == "F" and name not in self._module.imported):
            self.add(node, "R105", f"'{name}' is a module here and cannot be assigned.", "choose another name")
        elif name in allowed.BUILTINS and not isinstance(node, ast.arg):
            hint = f"choose another name, for example {name}_value"
            self.add(node, "R120", f"'{name}' is a builtin function and cannot be assigned.", hint)

    def visit_Name(self, node: ast.Name) -> None:
        name = node.id
        if self._private(node, name) or self._scope.knows(name):
            return
        if name in self._bindings:
            path = self._bindings[name]
            if path is None or path in allowed.MODULES:
                hint = (
                    allowed.NAME_HINTS["Tensor"] if path is None else f"call one of its functions, as in {name}.exp(x)"
                )
                self.add(node, "R105", f"'{name}' cannot be used as a value.", hint)
        elif name not in allowed.BUILTINS:
            self._unknown_name(node, name)

    def _unknown_name(self, node: ast.AST, name: str) -> None:
        """Report a name that is neither an argument, a local, a helper nor a builtin."""
        self._guesses += 1
        guess = ""
        if self._guesses <= MAX_GUESSES:
            options = [*self._dims, *allowed.BUILTINS, *self._bindings, *self._scope.every_name()]
            guess = did_you_mean(name, options[:MAX_OPTIONS])
        hint = allowed.NAME_HINTS.get(name, "define it in the program, or take a signal as an argument")
        if name in self._dims:
            hint = f"it is a signal: add {name} to the arguments of the function"
        self.add(node, "R105", f"the name '{name}' is not defined.{guess}", hint)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._module_member(node):
            return
        self.visit(node.value)
        if node.attr.startswith("_"):
            hint = "attributes that begin with '_' are not available"
            self.add(node, "R106", f"the attribute '.{node.attr}' is not allowed.", hint)
        elif node.attr not in allowed.ATTRIBUTES:
            called = node.attr in allowed.TENSOR_METHODS
            hint = f"call it: .{node.attr}(...)" if called else allowed.NAME_HINTS.get(node.attr, _ATTRIBUTE_HINT)
            guess = "" if called else did_you_mean(node.attr, allowed.ATTRIBUTES)
            self.add(node, "R107", f"the attribute '.{node.attr}' is not available.{guess}", hint)

    def _module_member(self, node: ast.Attribute) -> bool:
        """Handle `torch.x`, `F.x`, `math.x`; False if the attribute is one of a value."""
        holder = self._path(node.value)
        if holder not in allowed.MODULES:
            return False
        if node.attr not in allowed.MODULES[holder]:
            guess = did_you_mean(node.attr, allowed.MODULES[holder])
            hint = allowed.NAME_HINTS.get(node.attr, _FUNCTION_HINT)
            if node.attr.endswith("_") and node.attr[:-1] in allowed.MODULES[holder]:
                self.add(node, "R109", f"'{holder}.{node.attr}' works in place.", f"use {holder}.{node.attr[:-1]}")
            else:
                self.add(node, "R108", f"'{holder}.{node.attr}' is not available.{guess}", hint)
        return True

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        path = self._path(function)
        if isinstance(function, ast.Attribute):
            if not self._module_member(function):
                self.visit(function.value)
                self._method(node, function)
        elif isinstance(function, ast.Name):
            self.visit_Name(function)
            self.calls.setdefault(self._function, set()).add(function.id)
        else:
            self.add(node, "R118", "only a named function or a method can be called.", "give the function a name")
            self.visit(function)
        builtin = isinstance(function, ast.Name) and not path and not self._scope.knows(function.id)
        method = isinstance(function, ast.Attribute) and function.attr != "update"  # of a dict: any name is a key
        self._call_arguments(node, bool(path) or method)
        name = function.id if builtin and isinstance(function, ast.Name) else path
        if (name in _TAKES_NUMBERS and builtin) or path.startswith("math."):
            self._needs_number(node, name)

    def _method(self, node: ast.Call, function: ast.Attribute) -> None:
        name = function.attr
        if name in allowed.TENSOR_METHODS or name in allowed.CONTAINER_METHODS:
            if name in allowed.MUTATING_METHODS:
                self._writes_into(node, function.value)
        elif name.startswith("_"):
            hint = "methods that begin with '_' are not available"
            self.add(node, "R106", f"the method '.{name}()' is not allowed.", hint)
        elif name.endswith("_") and name[:-1] in allowed.TENSOR_METHODS:
            self.add(node, "R109", f"'.{name}()' works in place.", f"use x = x.{name[:-1]}(...)")
        else:
            hint = allowed.NAME_HINTS.get(name, "only pure tensor methods are available")
            guess = did_you_mean(name, allowed.TENSOR_METHODS)
            self.add(node, "R107", f"the method '.{name}()' is not available.{guess}", hint)

    def _call_arguments(self, node: ast.Call, ours: bool) -> None:
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                self.add(node, "R118", "'*' in a call is not allowed.", "pass the arguments one by one")
                argument = argument.value
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg is None:
                self.add(node, "R118", "'**' in a call is not allowed.", "pass the arguments one by one")
            elif ours and keyword.arg not in allowed.KEYWORDS:
                in_place = keyword.arg in ("out", "inplace")
                hint = "assign the result instead" if in_place else "remove this keyword"
                code = "R109" if in_place else "R118"
                self.add(node, code, f"the keyword '{keyword.arg}=' is not allowed.", hint)
            self.visit(keyword.value)

    def _needs_number(self, node: ast.Call, name: str) -> None:
        if any(isinstance(item, ast.Constant) and isinstance(item.value, str) for item in node.args):
            hint = "write the number itself; for no bound leave it out, or write 1e9"
            self.add(node, "R116", f"'{name}' of a text is not allowed.", hint)
        if any(is_tensor(item, self._scope.tensors) for item in node.args):
            bare = name.removeprefix("math.")
            same = f"torch.{bare}" if bare in allowed.TORCH_FUNCTIONS else "the torch function"
            hint = f"use {_TENSOR_WAY.get(name, same)}"
            self.add(
                node,
                "R115",
                f"'{name}' takes Python numbers; this is a tensor with one value per world.",
                hint,
            )

    # -- constants ----------------------------------------------------------------------------------

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool) or value is None or value is Ellipsis:
            return
        if isinstance(value, int | float):
            if not abs(value) <= MAX_NUMBER:  # also true for inf; Python integers of any size compare
                message = f"a number beyond {MAX_NUMBER:g} is not allowed."
                self.add(node, "R112", message, "float32 would overflow; use a smaller number")
        elif isinstance(value, str):
            if not _TEXT.fullmatch(value):
                hint = "text is only for component names; use letters, digits and _"
                self.add(node, "R116", "this text holds characters that are not allowed.", hint)
        else:
            self.add(node, "R116", f"a {type(value).__name__} constant is not allowed.", "use float or int numbers")

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        if not isinstance(node.value, ast.Name) or node.format_spec is not None or node.conversion != -1:
            hint = 'write f"name_{i}" with a plain loop variable'
            self.add(node, "R116", "only a plain name may stand in an f-string.", hint)
        self.visit(node.value)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.generic_visit(node)
        if any(isinstance(side, ast.Constant | ast.JoinedStr) and _is_text(side) for side in (node.left, node.right)):
            self.add(node, "R116", "arithmetic on text is not allowed.", 'use an f-string, as in f"name_{i}"')
        if isinstance(node.op, ast.Pow):
            exponent = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
            plain = isinstance(exponent, ast.Constant) and isinstance(exponent.value, int | float)
            if plain and abs(exponent.value) > MAX_EXPONENT:  # type: ignore[union-attr,arg-type]
                hint = "use torch.exp, or a smaller exponent"
                self.add(node, "R112", f"an exponent beyond {MAX_EXPONENT} is not allowed.", hint)
            elif isinstance(exponent, ast.BinOp) and not is_tensor(exponent, self._scope.tensors):
                hint = "use torch.exp, or a constant exponent"
                self.add(node, "R112", "a computed exponent of numbers is not allowed.", hint)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
