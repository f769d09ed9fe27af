"""Checked reward source -> the program's entry point. The only `exec` of the project is here.

Runs in the trial's child process and nowhere else: what trains is the graph of tensor operators that
`rewards.recorder` makes of the entry point. A program is executed only after `rewards.check` found nothing in it,
and in a namespace that holds the allowed functions themselves: `torch`, `F` and `math` are plain objects, never
the modules. That is an allow-list, not a sandbox; the child process is confined besides.
"""

import ast
import builtins
import importlib
import math
import types
from collections.abc import Callable

import torch

from rewards import allowed
from rewards.check import ENTRY_POINT
from rewards.result import RewardError, one_line, refuse_unchecked
from rewards.source import parse, parsed
from tasks.signals import SignalTable

PROGRAM_NAME = "<reward>"
"""File name of reward programs in tracebacks; how a frame of a program is told from ours."""

Program = Callable[..., object]


def load_program(text: str, table: SignalTable) -> Program:
    """The bare entry point of a program that passes the check: arguments by position, nothing validated."""
    refuse_unchecked(text, table)
    return load_checked(text)


def load_checked(text: str) -> Program:
    """The same of a program that was checked already, as `rewards.sandbox` does before it sends one to its child."""
    return _execute(text)


def _execute(text: str) -> Program:
    tree = ast.fix_missing_locations(_Strip().visit(parse(text)))
    builtin = {name: getattr(builtins, name) for name in allowed.BUILTINS}
    namespace: dict[str, object] = {"__builtins__": {**builtin, "__import__": _import_for_torch}}
    namespace.update(_imports(parsed(text)))
    try:
        code = compile(tree, PROGRAM_NAME, "exec", dont_inherit=True)
        with torch.no_grad():
            exec(code, namespace)
    except Exception as error:
        raise RewardError(type(error).__name__, one_line(error), program_line(error)) from error
    return namespace[ENTRY_POINT]  # type: ignore[return-value]


def _import_for_torch(name: str, *_: object) -> object:
    """torch's C++ code imports parts of torch on first use through the builtins of the frame that called it.

    A program cannot reach this: its own imports are taken off, and names with "__" do not pass the check.
    """
    if name.split(".")[0] != "torch":
        raise ImportError(f"'{name}' cannot be imported by a reward program")
    return importlib.import_module(name)


def _imports(tree: ast.Module) -> dict[str, object]:
    bindings: dict[str, str | None] = dict(allowed.PRELUDE)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bindings.update(allowed.import_bindings(node)[0])
    return {name: _resolve(path) for name, path in bindings.items() if path is not None}


def _resolve(path: str) -> object:
    value: object = _NAMESPACES["math" if path.startswith("math") else "torch"]
    for part in path.split(".")[1:]:
        value = getattr(value, part)
    return value


def _namespace(path: str) -> types.SimpleNamespace:
    module = math if path == "math" else importlib.import_module(path)
    own = {"pi": math.pi, "e": math.e}  # torch.pi and torch.e are Python floats
    members = allowed.MODULES[path]
    return types.SimpleNamespace(**{name: own[name] if name in own else getattr(module, name) for name in members})


def _namespaces() -> dict[str, types.SimpleNamespace]:
    spaces = {path: _namespace(path) for path in allowed.MODULES}
    for path, space in spaces.items():
        holder, _, name = path.rpartition(".")
        if holder:
            setattr(spaces[holder], name, space)
    return spaces


_NAMESPACES = _namespaces()


class _Strip(ast.NodeTransformer):
    """Takes off what changes no value and could run code when a function is defined: imports, annotations,
    decorators, `with torch.no_grad()`."""

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.Pass:
        return ast.copy_location(ast.Pass(), node)

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = []
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_With(self, node: ast.With) -> list[ast.AST]:
        return [item for statement in node.body for item in _as_list(self.visit(statement))]


def _as_list(nodes: ast.AST | list[ast.AST]) -> list[ast.AST]:
    return nodes if isinstance(nodes, list) else [nodes]


def program_line(error: BaseException) -> int:
    """The innermost line of the reward program in an exception's traceback; 0 if none of its frames is
    there."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == PROGRAM_NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
