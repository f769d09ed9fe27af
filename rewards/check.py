"""The gate's second stage: a program's text against the allow-list, all violations at once, line by line.

This module holds the rules for the program as a whole (size, identifiers, entry point, recursion);
`rewards.rules` walks its statements. Nothing is executed, and no input makes `check` raise.
"""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator, Sequence

from rewards import allowed
from rewards.dry_run import dry_run
from rewards.expressions import Violation
from rewards.rules import Rules
from rewards.scopes import Scope, assigned_names
from rewards.source import ENTRY_POINT, MAX_PROGRAM_CHARS, ProgramSyntaxError, entry_points, parsed
from tasks.errors import UserError, did_you_mean
from tasks.signals import Signal, SignalTable

__all__ = ["ENTRY_POINT", "RULES", "Violation", "check", "entry_arguments"]

MAX_NODES = 8000
"""Most syntax nodes; the longest rewards published with Eureka have about 1,000."""
MAX_DEPTH = 80
"""Deepest nesting of syntax nodes; written programs stay below 25."""
MAX_FUNCTIONS = 64
"""Most functions and lambdas; written programs stay below 20."""
MAX_NAME_CHARS = 80
"""Longest name: names are quoted in messages and compared for similarity."""
MAX_VIOLATIONS = 100
"""Most violations reported: a designer mends the first ones first."""
MAX_COMPONENTS = 32
"""Most components of one reward: each is a line in the reflection that a designer reads."""
COMPONENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""What a component may be called."""
_NAME_FIELDS = frozenset({"id", "arg", "attr", "name", "asname", "module"})
_REORDERS = re.compile("[\u202a-\u202e\u2066-\u2069]")

RULES = {
    "R101": "the program must be valid Python",
    "R102": "the program must be of moderate length and depth",
    "R103": "only functions, assignments, branches on constants, bounded loops and expressions are allowed",
    "R104": "only torch, torch.nn.functional, math and typing can be imported",
    "R105": "every name must be an argument, a local, a helper, a constant or one of a few builtins",
    "R106": "names that begin with '__' and attributes that begin with '_' are not available",
    "R107": "only pure tensor methods and attributes are available",
    "R108": "only pure tensor functions are available",
    "R109": "nothing may be changed in place except fresh local tensors",
    "R110": "a loop must have a fixed, small number of passes",
    "R111": "a function may not call itself",
    "R112": "numbers must fit float32 and take no time to compute",
    "R113": "names must be ASCII",
    "R114": "decorators are not needed",
    "R115": "nothing may decide on a tensor's value outside tensor operations",
    "R116": "constants are numbers, True, False, None and short plain texts",
    "R117": "a function may not keep state between calls",
    "R118": "functions and calls take plainly named arguments",
    "R119": "a size written in the program is at most 4096 numbers",
    "R120": "modules and builtins keep their names",
    "R121": f"the program must define {ENTRY_POINT} at the top level",
    "R122": f"the program must define {ENTRY_POINT} once",
    "R123": "the arguments of the entry point are names from the signal table",
    "R124": "the entry point takes plain arguments without defaults",
    "R125": f"{ENTRY_POINT} returns (total, components)",
    "R126": "components are a dict of 1 to 32 names [A-Za-z_][A-Za-z0-9_]*, and 'total' is reserved",
    "R127": "annotations are plain types",
}
"""Code -> the rule in words."""


def check(text: str, table: SignalTable) -> list[Violation]:
    """Every violation of a program, sorted by line; an empty list admits it to the trial.

    Never raises on account of the text, whatever it holds. A text that does not parse, or is too large to
    walk, has that one violation. The latest programs' answers are remembered: the gate, the trial and whoever runs a
    program each ask for themselves.
    """
    return list(_checked(text, tuple(table)))


@functools.lru_cache(maxsize=32)
def _checked(text: str, signals: tuple[Signal, ...]) -> tuple[Violation, ...]:
    return tuple(_violations(text, SignalTable(signals)))


def _violations(text: str, table: SignalTable) -> list[Violation]:
    if len(text) > MAX_PROGRAM_CHARS:
        message = f"the program has {len(text)} characters; the limit is {MAX_PROGRAM_CHARS}."
        return [Violation(0, "R102", message, "write a shorter program")]
    try:
        tree = parsed(text)
    except ProgramSyntaxError as error:
        hint = "send a complete, correctly indented Python program"
        return [Violation(error.line, "R101", f"{error.message}.", hint)]
    nodes: list[ast.AST] = []
    if size := _too_large(tree, nodes):
        return [Violation(0, "R102", size, "write a shorter program")]
    if long := list(_long_names(nodes)):
        return long[:MAX_VIOLATIONS]
    bindings: dict[str, str | None] = dict(allowed.PRELUDE)
    imported: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found, _ = allowed.import_bindings(node)
            bindings.update(found)
            imported.update(found)
    dims = {signal.name: signal.dims for signal in table}
    rules = Rules(Scope(None, assigned_names(tree), imported=frozenset(imported)), bindings, dims)
    rules.visit(tree)
    violations = set(rules.violations)
    violations.update(_foreign_identifiers(text))
    violations.update(_recursion(nodes, rules.calls))
    violations.update(_entry_point(tree, nodes, table))
    if not violations:
        violations.update(dry_run(tree, bindings, dims))
    return sorted(violations)[:MAX_VIOLATIONS]


@functools.lru_cache(maxsize=32)
def entry_arguments(text: str) -> tuple[str, ...]:
    """Names of the entry point's arguments in order. Raises UserError if the text has not exactly one entry
    point."""
    found = entry_points(parsed(text))
    if len(found) != 1:
        raise UserError(f"expected one function named {ENTRY_POINT} in the reward program, found {len(found)}.")
    return tuple(argument.arg for argument in [*found[0].args.posonlyargs, *found[0].args.args])


def _too_large(tree: ast.Module, nodes: list[ast.AST]) -> str:
    """What is too large, "" for nothing; `nodes` then holds every node, in the order of `ast.walk`."""
    count, functions = 0, 0
    level: list[ast.AST] = [tree]
    for depth in range(MAX_DEPTH + 2):
        count += len(level)
        if count > MAX_NODES:
            return f"the program has more than {MAX_NODES} syntax nodes."
        functions += sum(isinstance(node, ast.FunctionDef | ast.Lambda) for node in level)
        nodes += level
        if functions > MAX_FUNCTIONS:
            return f"the program has more than {MAX_FUNCTIONS} functions."
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return ""
        if depth > MAX_DEPTH:
            break
    return f"the program is nested more than {MAX_DEPTH} levels deep."


def _long_names(nodes: Sequence[ast.AST]) -> Iterator[Violation]:
    line = 0
    for node in nodes:
        line = getattr(node, "lineno", line)
        for field in _NAME_FIELDS.intersection(node._fields):
            name = getattr(node, field)
            if isinstance(name, str) and len(name) > MAX_NAME_CHARS:
                message = f"the name that begins with {name[:40]!a} has {len(name)} letters."
                yield Violation(line, "R102", message, f"choose a name of at most {MAX_NAME_CHARS} letters")


def _foreign_identifiers(text: str) -> Iterator[Violation]:
    """Identifiers outside ASCII: Python folds look-alikes into ASCII names, a reader does not. And marks that
    make an editor show a line in another order than Python reads it."""
    if text.isascii():
        return
    for number, line in enumerate(text.split("\n"), 1):
        if _REORDERS.search(line):
            yield Violation(number, "R113", "this line holds marks that reorder what is shown.", "remove them")
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.NAME, tokenize.ERRORTOKEN) and not token.string.isascii():
                message = f"the name {token.string!a} holds characters outside ASCII."
                yield Violation(token.start[0], "R113", message, "use a-z, A-Z, 0-9 and _")
    except (
        tokenize.TokenError,
        SyntaxError,
    ) as error:  # it parsed, so only a difference between both can end here
        yield Violation(0, "R101", f"the text cannot be split into tokens ({error}).", "write plain Python")


def _recursion(nodes: Sequence[ast.AST], calls: dict[str, set[str]]) -> Iterator[Violation]:
    for node in nodes:
        if not isinstance(node, ast.FunctionDef):
            continue
        reached: set[str] = set()
        todo = set(calls.get(node.name, ()))
        while todo:
            name = todo.pop()
            reached.add(name)
            todo |= calls.get(name, set()) - reached
        if node.name in reached:
            hint = "write the steps out, or loop over a literal tuple"
            yield Violation(node.lineno, "R111", f"the function '{node.name}' ends up calling itself.", hint)


def _entry_point(tree: ast.Module, nodes: Sequence[ast.AST], table: SignalTable) -> Iterator[Violation]:
    found = entry_points(tree)
    if not found:
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        hint = f"def {ENTRY_POINT}({', '.join(table.names[:2])}): ... return total, {{'name': value}}"
        message = f"there is no function '{ENTRY_POINT}'."
        line = next((node.lineno for node in tree.body if isinstance(node, ast.FunctionDef)), 0)
        near = did_you_mean(ENTRY_POINT, functions)
        yield Violation(line if near else 0, "R121", message + near.replace("Did you mean", "Rename"), hint)
        return
    for again in found[1:]:
        yield Violation(again.lineno, "R122", f"'{ENTRY_POINT}' is defined a second time.", "keep one of them")
    for node in nodes:
        if isinstance(node, ast.Name) and node.id == ENTRY_POINT and isinstance(node.ctx, ast.Store):
            yield Violation(node.lineno, "R122", f"'{ENTRY_POINT}' is assigned again.", "choose another name")
    entry = found[0]
    if isinstance(entry, ast.FunctionDef):
        yield from _signature(entry, table)
        yield from _returns(entry)


def _signature(entry: ast.FunctionDef, table: SignalTable) -> Iterator[Violation]:
    arguments = entry.args
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    plain = "write plain names separated by commas"
    if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        yield Violation(entry.lineno, "R124", "the entry point has '*', '**' or '/' among its arguments.", plain)
    if arguments.defaults or any(arguments.kw_defaults):
        hint = "make the value a constant at the top level"
        yield Violation(entry.lineno, "R124", "an argument of the entry point has a default value.", hint)
    if not names:
        hint = f"take at least one signal: {', '.join(table.names)}"
        yield Violation(entry.lineno, "R124", "the entry point takes no argument.", hint)
    for argument in names:
        if argument.arg not in table:
            hint = allowed.NAME_HINTS.get(argument.arg, f"the signals are {', '.join(table.names)}")
            near = did_you_mean(argument.arg, table.names)
            message = f"the argument '{argument.arg}' is not a signal of this task.{near}"
            yield Violation(argument.lineno, "R123", message, hint)


def _returns(entry: ast.FunctionDef) -> Iterator[Violation]:
    """What can be said of the returned pair without running; the trial checks the rest."""
    hint = "end with: return total, {'component_name': component, ...}"
    found: list[ast.Return] = []
    todo: list[ast.AST] = list(entry.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Return):
            found.append(node)
        elif not isinstance(node, ast.FunctionDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))
    if not found:
        yield Violation(entry.lineno, "R125", "the entry point returns nothing.", hint)
    for node in found:
        pair = node.value
        if isinstance(pair, ast.Name | ast.IfExp) or (isinstance(pair, ast.Call) and isinstance(pair.func, ast.Name)):
            continue  # a variable or a helper's result: only the trial can tell
        if not isinstance(pair, ast.Tuple) or len(pair.elts) != 2:
            came = f"{len(pair.elts)} values" if isinstance(pair, ast.Tuple) else "one value"
            came = "nothing" if pair is None else came
            yield Violation(node.lineno, "R125", f"the entry point returns {came} instead of two.", hint)
        elif isinstance(pair.elts[0], ast.Constant | ast.Dict):
            yield Violation(node.lineno, "R125", "the total is not a tensor with one value per world.", hint)
        elif isinstance(pair.elts[1], ast.Dict):
            yield from _component_names(pair.elts[1])
        elif isinstance(pair.elts[1], ast.Constant | ast.List | ast.Tuple | ast.BinOp | ast.ListComp):
            yield Violation(node.lineno, "R125", "the second value returned is not a dict.", hint)


def _component_names(node: ast.Dict) -> Iterator[Violation]:
    hint = "name components as in 'upright_exp': letters, digits and _"
    seen: set[object] = set()
    if not node.keys:
        yield Violation(node.lineno, "R126", "the dict of components is empty.", "return at least one component")
    if len(node.keys) > MAX_COMPONENTS:
        message = f"there are {len(node.keys)} components; the limit is {MAX_COMPONENTS}."
        yield Violation(node.lineno, "R126", message, "add up the small ones")
    for key in node.keys:
        if not isinstance(key, ast.Constant):
            if key is None:
                yield Violation(node.lineno, "R118", "'**' in a dict is not allowed.", "write the keys out")
            continue
        if not isinstance(key.value, str) or not COMPONENT_NAME.fullmatch(key.value):
            yield Violation(key.lineno, "R126", f"{key.value!a:.80} is not a component name.", hint)
        elif key.value == "total":
            message = "the component name 'total' is reserved for the sum that you return first."
            yield Violation(key.lineno, "R126", message, "leave it out, or choose another name")
        elif key.value in seen:
            yield Violation(key.lineno, "R126", f"the component '{key.value}' is given twice.", "keep one")
        seen.add(key.value)
