"""Checked reward source -> a function of signals. The only `exec` of the project is here.

A program is executed only after `rewards.check` found nothing in it, and in a namespace that holds the
allowed functions themselves: `torch`, `F` and `math` are plain objects, never the modules. That is an
allow-list, not a sandbox: a reward that comes from outside passes `rewards.sandbox` (a child process) before
it is built here. `build_reward` is the one door to a runnable reward, so that what is behind it can change.

Axes: N worlds. Signals are (N, dims); the total and every component are (N,) float32.
"""

import ast
import builtins
import importlib
import math
import types
from collections.abc import Callable

import torch

from rewards import allowed
from rewards.check import COMPONENT_NAME, ENTRY_POINT, MAX_COMPONENTS, check, entry_arguments
from rewards.source import RewardSource, parse
from tasks.errors import UserError
from tasks.signals import Signals, SignalTable

PROGRAM_NAME = "<reward>"
"""File name of reward programs in tracebacks; how a frame of a program is told from ours."""

Program = Callable[..., object]


class RewardError(UserError):
    """A reward program failed while it ran, or returned what no reward may return.

    `error_type` is the exception's class name (or "ValueError" for a bad result), `line` the line in the
    program (0: none), `detail` the bare message.
    """

    def __init__(self, error_type: str, detail: str, line: int) -> None:
        place = f" in line {line}" if line else ""
        super().__init__(f"the reward program failed{place}: {error_type}: {detail}")
        self.error_type = error_type
        self.detail = detail
        self.line = line


class RewardFunction:
    """A reward that can be called on signals.

    `inputs` are the names of the signals it reads, `sha256` the hash of its source, `components` the names it
    returned on its first call (empty before).
    """

    inputs: tuple[str, ...]
    sha256: str
    components: tuple[str, ...]

    def __init__(self, text: str) -> None:
        self.inputs = entry_arguments(text)
        self.sha256 = RewardSource(text).sha256
        self.components = ()
        self._text = text
        self._entries: dict[torch.device, Program] = {torch.device("cpu"): _execute(text)}
        self._copied: frozenset[str] = frozenset()

    def __call__(self, signals: Signals) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Rewards of all worlds: total (N,) and components name -> (N,), float32, none sharing memory with a
        signal.

        Raises RewardError when the program fails; on the first call also when names, shapes, dtypes or
        devices of the results are wrong. Values are not looked at: a NaN is returned as it is.
        """
        arguments = [signals[name] for name in self.inputs]
        device = arguments[0].device
        try:
            with torch.no_grad():
                if device.type == "cpu":
                    result = self._entries[device](*arguments)
                else:
                    result = self._on(device)(arguments)
        except Exception as error:
            raise RewardError(type(error).__name__, one_line(error), program_line(error)) from error
        if not self.components:  # a result has at least one
            self._first_result(result, arguments)
        total, components = result  # type: ignore[misc]
        if self._copied:
            components = {name: value.clone() if name in self._copied else value for name, value in components.items()}
            total = total.clone() if "total" in self._copied else total
        return total, components

    def _on(self, device: torch.device) -> Callable[[list[torch.Tensor]], object]:
        """The program for another device: tensors that it makes without naming one are made there."""
        if device not in self._entries:
            with device:
                self._entries[device] = _execute(self._text)

        def run(arguments: list[torch.Tensor]) -> object:
            with device:
                return self._entries[device](*arguments)

        return run

    def _first_result(self, result: object, arguments: list[torch.Tensor]) -> None:
        problem = structure_problem(result) or tensors_problem(result, arguments[0])
        if problem:
            raise RewardError("ValueError", problem, 0)
        total, components = result  # type: ignore[misc]
        entry = self._entries[arguments[0].device]
        constants = [value for value in _globals(entry).values() if isinstance(value, torch.Tensor)]
        # A caller may work in place on a result, so each owns its memory: what shares it with a signal,
        # a constant of the program, another result or itself (an expanded tensor) is copied.
        taken = {storage_of(tensor) for tensor in [*arguments, *constants]}
        copied: set[str] = set()
        for name, value in [*components.items(), ("total", total)]:
            if storage_of(value) in taken or not value.is_contiguous():
                copied.add(name)
            taken.add(storage_of(value))
        self._copied = frozenset(copied)
        self.components = tuple(components)


def build_reward(text: str, table: SignalTable) -> RewardFunction:
    """A callable reward from a program's text.

    Raises UserError with the first violation if the check refuses the text, RewardError if its top level
    fails.
    """
    _refuse_unchecked(text, table)
    return RewardFunction(text)


def load_program(text: str, table: SignalTable) -> Program:
    """The bare entry point of a checked program, for the trial: arguments by position, nothing validated."""
    _refuse_unchecked(text, table)
    return _execute(text)


def _refuse_unchecked(text: str, table: SignalTable) -> None:
    violations = check(text, table)
    if violations:
        more = f" (and {len(violations) - 1} more; `eureka check` lists them)" if len(violations) > 1 else ""
        first = violations[0]
        raise UserError(f"reward program, line {first.line}, {first.code}: {first.message} {first.hint}{more}")


def _execute(text: str) -> Program:
    tree = ast.fix_missing_locations(_Strip().visit(parse(text)))
    builtin = {name: getattr(builtins, name) for name in allowed.BUILTINS}
    namespace: dict[str, object] = {"__builtins__": {**builtin, "__import__": _import_for_torch}}
    namespace.update(_imports(parse(text)))
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


def _globals(entry: Program) -> dict[str, object]:
    return getattr(entry, "__globals__", {})


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


def structure_problem(result: object) -> str:
    """What is wrong with the form of a program's result, in one line; "" if it is (tensor, dict of
    tensors)."""
    if not isinstance(result, tuple) or len(result) != 2:
        came = f"a tuple of {len(result)}" if isinstance(result, tuple) else _type_name(result)
        return f"the entry point returned {came}; expected the pair (total, components)."
    total, components = result
    if not isinstance(total, torch.Tensor):
        return f"the total is {_type_name(total)}; expected a tensor with one value per world."
    if not isinstance(components, dict):
        return f"the second value returned is {_type_name(components)}; expected a dict of components."
    if not 1 <= len(components) <= MAX_COMPONENTS:
        return f"there are {len(components)} components; expected 1 to {MAX_COMPONENTS}."
    for name, value in components.items():
        if not isinstance(name, str) or not COMPONENT_NAME.fullmatch(name):
            return f"{name!a:.80} is not a component name; use letters, digits and _."
        if name == "total":
            return "the component name 'total' is reserved for the sum that is returned first."
        if not isinstance(value, torch.Tensor):
            return f"component '{name}' is {_type_name(value)}; expected a tensor with one value per world."
    return ""


def tensors_problem(result: object, like: torch.Tensor) -> str:
    """The first wrong shape, dtype or device of a result of sound structure, in one line; "" if all are
    right."""
    total, components = result  # type: ignore[misc]
    for name, value in [("total", total), *components.items()]:
        came = (tuple(value.shape), value.dtype, value.device)
        wanted = ((like.shape[0],), torch.float32, like.device)
        if came != wanted:
            form = "{} {} on {}"
            return f"'{name}' is {form.format(*came)}; expected {form.format(*wanted)}."
    return ""


def _type_name(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def storage_of(tensor: torch.Tensor) -> int:
    """Address of the memory behind a tensor; equal for views of one tensor."""
    return tensor.untyped_storage().data_ptr()


def program_line(error: BaseException) -> int:
    """The innermost line of the reward program in an exception's traceback; 0 if none of its frames is
    there."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == PROGRAM_NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks, and without torch's appendix of C++ frames."""
    return " ".join(str(error).split("Exception raised from")[0].split())[:500]
