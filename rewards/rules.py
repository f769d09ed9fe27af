"""The rules for a reward program's body: one walk over the syntax tree that collects every violation.

`rewards.check` holds the rules for the whole (size, entry point, recursion) and is the module to call. The
walk never executes or folds anything of the program, so it takes the time of the text's length and no more.

It knows types only roughly: in the entry point, whatever is computed from an argument counts as a tensor, so
that `if speed > 1` is refused here; inside helper functions the trial finds the same mistake.
"""

import ast
import re
from collections.abc import Iterable, Mapping

from rewards import allowed
from rewards.expressions import ExpressionRules
from rewards.scopes import Scope, assigned_names, is_tensor, loop_bound, tensor_names
from rewards.source import ENTRY_POINT
from tasks.errors import did_you_mean

MAX_LOOP_STEPS = 1024
"""Most passes of nested loops together: 64 joints x 16 terms; real programs loop over a dozen weights."""
_TYPE_SYNTAX = (
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant),
    *(ast.BinOp, ast.BitOr, ast.Load),
)
_OPERATORS = {"Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "Pow": "**", "BitAnd": "&", "BitOr": "|"}


class Rules(ExpressionRules):
    """Walks one whole program; see `ExpressionRules` for its arguments and results."""

    def __init__(self, module: Scope, bindings: Mapping[str, str | None], dims: Mapping[str, int]) -> None:
        super().__init__(module, bindings, dims)
        self._steps = 1  # passes of all loops around the present node

    # -- syntax -------------------------------------------------------------------------------------

    def visit(self, node: ast.AST) -> None:
        """Visit an allowed node by its method; report any other node and look only into its statements."""
        kind = type(node).__name__
        self._line = getattr(node, "lineno", self._line)
        if kind in allowed.NODES:
            super().visit(node)
            return
        words = allowed.NODE_WORDS.get(kind, re.sub(r"(?<!^)([A-Z])", r" \1", kind).lower())
        hint = allowed.NODE_HINTS.get(kind, "use plain assignments, calls and arithmetic on tensors")
        self.add(node, "R103", f"'{words}' is not allowed in a reward program.", hint)
        if not isinstance(node, ast.ClassDef | ast.AsyncFunctionDef):
            self._visit_all(getattr(node, "body", None))

    def _visit_all(self, nodes: object) -> None:
        for node in nodes if isinstance(nodes, list) else []:
            self.visit(node)

    def visit_Module(self, node: ast.Module) -> None:
        plain = (ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Pass)
        for statement in node.body:
            documents = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            known = type(statement).__name__ in allowed.NODES
            if known and not documents and not isinstance(statement, plain):
                hint = "keep imports, constants and functions at the top level; compute inside the function"
                self.add(statement, "R103", "this statement may not stand at the top level.", hint)
            self.visit(statement)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring, or an ellipsis
        call = node.value
        mutates = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if not (mutates and call.func.attr in allowed.MUTATING_METHODS):  # type: ignore[union-attr]
            call_name = allowed.dotted(call.func) if isinstance(call, ast.Call) else ""
            if call_name.split(".")[-1] not in allowed.NAME_HINTS:  # those are reported with their own hint below
                self.add(node, "R103", "this expression has no effect.", "assign or return its value")
        self.visit(call)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        _, refused = allowed.import_bindings(node)
        for path in refused:
            names = [name for module, members in allowed.MODULES.items() for name in (module, *members)]
            hint = "only torch, torch.nn.functional, math and typing can be imported"
            guess = did_you_mean(path.rsplit(".", 1)[-1], names) if path.startswith(("torch", "math")) else ""
            self.add(node, "R104", f"'{path}' cannot be imported.{guess}", hint)

    visit_ImportFrom = visit_Import

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            call = item.context_expr
            path = self._path(call.func) if isinstance(call, ast.Call) and not (call.args or call.keywords) else ""
            if path not in allowed.CONTEXTS or item.optional_vars is not None:
                self.add(node, "R103", "this 'with' is not allowed.", "only torch.no_grad() may follow 'with'")
        self._visit_all(node.body)

    # -- functions ----------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._private(node, node.name)
        self._rebinds(node, node.name)
        self._annotation(node.returns)
        if getattr(node, "type_params", None):  # Python 3.12
            self.add(node, "R103", "type parameters are not allowed.", "remove the brackets after the name")
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            target = decorator if call is None else call.func
            given = [] if call is None else [*call.args, *(item.value for item in call.keywords)]
            if self._path(target) not in allowed.DECORATORS or not all(map(_is_literal, given)):
                self.add(decorator, "R114", "this decorator is not allowed.", "remove the decorator")
        self._enter_function(node, node.name, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._enter_function(node, self._function, [node.body])

    def _enter_function(self, node: ast.FunctionDef | ast.Lambda, name: str, body: Iterable[ast.AST]) -> None:
        arguments = node.args
        for default in [*arguments.defaults, *(item for item in arguments.kw_defaults if item is not None)]:
            if not _is_literal(default):
                hint = "use a number, a tuple of numbers, True, False or None"
                self.add(default, "R118", "a default value must be a plain constant.", hint)
            self.visit(default)
        parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for parameter in [*parameters, *filter(None, (arguments.vararg, arguments.kwarg))]:
            self._private(parameter, parameter.arg)
            self._rebinds(parameter, parameter.arg)
            self._annotation(parameter.annotation)
        if (arguments.vararg or arguments.kwarg) and name != ENTRY_POINT:
            self.add(node, "R118", "*args and **kwargs are not allowed.", "name each argument")
        outer = (self._scope, self._steps, self._function)
        params = frozenset(parameter.arg for parameter in parameters)
        entry = name == ENTRY_POINT and self._scope is self._module
        tensors = tensor_names(node, params) if entry else frozenset[str]()
        self._scope = Scope(self._scope, assigned_names(node), params, tensors)
        self._steps, self._function = (1, name) if isinstance(node, ast.FunctionDef) else (self._steps, name)
        for statement in body:
            self.visit(statement)
        self._scope, self._steps, self._function = outer

    def _annotation(self, node: ast.expr | None) -> None:
        """Annotations are taken off before the program runs; none may hold more than a type all the same."""
        for item in ast.walk(node) if node is not None else ():
            private = (isinstance(item, ast.Name) and item.id.startswith("__")) or (
                isinstance(item, ast.Attribute) and item.attr.startswith("_")
            )
            if not isinstance(item, _TYPE_SYNTAX) or private:
                hint = "write a type, as in x: Tensor or x: dict[str, Tensor], or leave the annotation out"
                self.add(item, "R127", "this annotation is not a plain type.", hint)
                return

    # -- assignment ---------------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._target(target)
            if isinstance(target, ast.Name):
                self._scope.remember(target.id, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        self._target(node.target)
        if node.value is not None:
            self.visit(node.value)
            if isinstance(node.target, ast.Name):
                self._scope.remember(node.target.id, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.op)
        self.visit(node.value)
        self._target(node.target)
        if not isinstance(node.target, ast.Name):
            return
        name = node.target.id
        operator = _OPERATORS.get(type(node.op).__name__, "+")
        if name in self._scope.params:
            hint = f"write a new name, for example new_{name} = {name} {operator} ..."
            self.add(node, "R109", f"'{name} {operator}= ...' would change the argument '{name}' in place.", hint)
        elif self._scope.is_alias(name):
            hint = f"write {name} = {name} {operator} ..."
            message = f"'{name} {operator}= ...' would change in place the tensor that '{name}' is another name of."
            self.add(node, "R109", message, hint)

    def _target(self, target: ast.expr) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            for item in target.elts:
                self._target(item)
        elif isinstance(target, ast.Name):
            self._private(target, target.id)
            self._rebinds(target, target.id)
        elif isinstance(target, ast.Subscript):
            self._writes_into(target, target.value)
            self.visit(target.value)
            self.visit(target.slice)
        elif isinstance(target, ast.Attribute):
            self.add(
                target,
                "R109",
                f"assigning to the attribute '.{target.attr}' is not allowed.",
                "make a new value",
            )
        else:
            self.visit(target)

    # -- loops and branches -------------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> None:
        self._target(node.target)
        self.visit(node.iter)
        outer = self._steps
        self._loop(node, node.iter)
        self._visit_all(node.body)
        self._visit_all(node.orelse)
        self._steps = outer

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> None:
        outer = (self._scope, self._steps)
        self._scope = Scope(self._scope, assigned_names(node), frozenset(), self._scope.tensors)
        for generator in node.generators:
            if generator.is_async:
                self.add(node, "R103", "'async for' is not allowed.", "use a plain comprehension")
            self._target(generator.target)
            self.visit(generator.iter)
            self._loop(node, generator.iter)
            for condition in generator.ifs:
                self.visit(condition)
                self._branch(condition)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self._scope, self._steps = outer

    visit_ListComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def _loop(self, node: ast.AST, iterable: ast.expr) -> None:
        bound = loop_bound(iterable, self._scope, self._dims)
        if bound is None and self._left_to_dry_run(iterable):
            return
        if bound is None:
            hint = "loop over a literal tuple, list or dict, or range(<number>); tensors hold all worlds"
            self.add(node, "R110", "the number of passes of this loop is not fixed in the text.", hint)
            return
        self._steps *= max(bound, 1)
        if self._steps > MAX_LOOP_STEPS:
            message = f"this loop makes {self._steps} passes with those around it; at most {MAX_LOOP_STEPS}."
            self.add(node, "R110", message, "vectorise over the last dimension of the tensors")
            self._steps = 1

    def _left_to_dry_run(self, iterable: ast.expr) -> bool:
        """Whether the passes depend on what a helper is given: only `rewards.dry_run` knows, call by call."""
        if self._function in ("", ENTRY_POINT):
            return False
        return any(isinstance(item, ast.Name) and item.id in self._scope.params for item in ast.walk(iterable))

    def visit_If(self, node: ast.If) -> None:
        self._branch(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._branch(node.test)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        if any(is_tensor(value, self._scope.tensors) for value in node.values):
            word = "and" if isinstance(node.op, ast.And) else "or"
            hint = f"use {'&' if word == 'and' else '|'} between conditions in parentheses"
            self.add(node, "R115", f"'{word}' cannot combine tensors.", hint)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not) and is_tensor(node.operand, self._scope.tensors):
            self.add(node, "R115", "'not' cannot negate a tensor.", "use ~condition or torch.logical_not")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) > 1 and is_tensor(node, self._scope.tensors):
            hint = "write (a < x) & (x < b)"
            self.add(node, "R115", "a chained comparison cannot compare tensors.", hint)
        self.generic_visit(node)

    def _branch(self, test: ast.expr) -> None:
        if isinstance(test, ast.BoolOp) or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            return  # reported by its own rule
        if is_tensor(test, self._scope.tensors):
            hint = "use torch.where(condition, a, b), which decides for each world"
            self.add(test, "R115", "a branch cannot depend on a tensor: it has one value per world.", hint)


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        return _is_literal(node.operand)
    if isinstance(node, ast.Tuple):
        return all(_is_literal(item) for item in node.elts)
    return isinstance(node, ast.Constant)
