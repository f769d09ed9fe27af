"""The source of a task as a reward designer may read it: without fitness, training settings or comments.

What goes: every function, class variable or module constant whose name starts with `fitness` (any case, leading
underscores ignored), the `training` mapping, the `randomize` table, how videos are drawn, what base classes that are
tasks of their own are for, and every constant or function, of the module or of a task's class, that is then used
nowhere and is no part of the contract of `tasks.task.Task`.
What stays is re-printed from the syntax tree, so comments cannot leak what the code no longer says.
"""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from types import ModuleType

from tasks.task import Task

_NOT_TOLD = ("training", "randomize", "build_visual_model", "visual_qpos", "set_command")
_OF_THE_TASK = ("name", "instruction")
"""What a base class that is a task of its own says of that task."""


def designer_source(task: Task) -> str:
    """Source of a task for a prompt: its class, base classes that are tasks themselves, and what they use.

    Base classes below `Task` are shown before it, those of other files with what they use there. Other task classes of
    these files are left out. Raises OSError if the source is not available.
    """
    told = task.told_source()
    if told is not None:
        return told
    cls = type(task)
    bases = [base for base in reversed(cls.__mro__) if issubclass(base, Task) and base is not Task]
    modules = list(dict.fromkeys(inspect.getmodule(base) for base in bases))
    tree = ast.Module(body=[], type_ignores=[])
    for module in modules:
        if module is None:
            raise OSError(f"no source for task class {cls.__name__}")
        tree.body += _open_statements(module, {base.__name__ for base in bases})
    _drop_repeated_imports(tree)
    shown = {base.__name__ for base in bases}
    tasks = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in shown]
    _drop_what_others_are_for(tasks, {base.__name__: base for base in bases}, cls)
    contract = {name for base in cls.__mro__ if inspect.getmodule(base) not in modules for name in _declared(base)}
    _drop_unused_members(tree, tasks, contract)
    _drop_unused(tree, keep=cls.__name__)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.body = node.body or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def _open_statements(module: ModuleType, shown: set[str]) -> list[ast.stmt]:
    """A module's statements without what is hidden and without task classes other than those `shown`."""
    tree = ast.parse(inspect.getsource(module))
    # First: once an assignment is gone, the string below it may look like the docstring of the class.
    _drop_attribute_docstrings(tree)
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.ClassDef) and node.name not in shown and _is_task(node, module))
        and not _is_hidden(node)
    ]
    for node in body:
        if isinstance(node, ast.ClassDef):
            node.body = [member for member in node.body if not _is_hidden(member)]
    return body


def _drop_what_others_are_for(tasks: list[ast.ClassDef], classes: dict[str, type], cls: type) -> None:
    """Take names and instructions out of base classes that are tasks themselves, where those of `cls` are others."""
    for task in tasks:
        own = vars(classes[task.name])
        others = {name for name in _OF_THE_TASK if name in own and own[name] != getattr(cls, name)}
        task.body = [node for node in task.body if not set(_bound_names(node)) & others]


def _drop_repeated_imports(tree: ast.Module) -> None:
    """Each import once, though every file has its own."""
    seen: set[str] = set()
    kept = []
    for node in tree.body:
        text = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
        if not text or text not in seen:
            kept.append(node)
        seen.add(text)
    tree.body = kept


def _is_task(node: ast.ClassDef, module: object) -> bool:
    value = getattr(module, node.name, None)
    return inspect.isclass(value) and issubclass(value, Task)


def _bound_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    return []


def _is_hidden(node: ast.stmt) -> bool:
    names = [name.lower().lstrip("_") for name in _bound_names(node)]
    return any(name.startswith("fitness") or name in _NOT_TOLD for name in names)


def _drop_attribute_docstrings(tree: ast.Module) -> None:
    """Strings below an assignment may describe what is hidden: keep only real docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            node.body = [
                member
                for place, member in enumerate(node.body)
                if place == 0 or not (isinstance(member, ast.Expr) and isinstance(member.value, ast.Constant))
            ]


def _declared(base: type) -> set[str]:
    """Names that a class defines or merely annotates."""
    return set(vars(base)) | set(vars(base).get("__annotations__", {}))


def _drop_unused_members(tree: ast.Module, tasks: list[ast.ClassDef], contract: set[str]) -> None:
    """Remove members of task classes that the contract does not know and nothing left refers to."""
    while True:
        members = [(task, member) for task in tasks for member in task.body]
        # Counted, so that a member that refers only to itself is not used.
        uses = Counter(_referred(tree))
        unused = []
        for task, member in members:
            names, own = set(_bound_names(member)), Counter(_referred(member))
            if names and not names & contract and all(uses[name] == own[name] for name in names):
                unused.append((task, member))
        if not unused:
            return
        for task, member in unused:
            task.body.remove(member)


def _referred(tree: ast.AST) -> Iterator[str]:
    """Every name read and every attribute named."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _drop_unused(tree: ast.Module, keep: str) -> None:
    """Remove module-level names that nothing left refers to, until nothing changes."""
    while True:
        used = {keep}
        for node in tree.body:
            own = set(_bound_names(node))
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            used |= names - (own if isinstance(node, ast.FunctionDef) else set())
        kept = [node for node in tree.body if not (names := _bound_names(node)) or used & set(names)]
        kept = [node for node in kept if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
        if len(kept) == len(tree.body):
            return
        tree.body = kept
