"""Names of Isaac Lab's tasks: its `gym.register` calls, read from the source.

It does not read the classes that they name.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from tasks.errors import UserError, did_you_mean
from tasks.isaaclab.package import Module, Source

PREFIX = "isaaclab:"
TASKS = "isaaclab_tasks"
_FOLDERS = ("direct", "manager_based")


@dataclass(frozen=True)
class Registration:
    """What one `gym.register` call says."""

    name: str
    """As in "Isaac-Ant-Direct-v0"."""
    package: str
    """Module that registers it."""
    env: tuple[str, str]
    """Module and class of the environment."""
    cfg: tuple[str, str]
    """Module and class of its configuration."""
    agent: tuple[str, str] | None
    """Module and class of rsl_rl's configuration, where there is one."""
    doc: str
    """Docstring of the package that registers it; "" where there is none."""


def registrations(source: Source) -> dict[str, Registration]:
    """Every task of the package isaaclab_tasks that names a configuration class, by name."""
    found = {}
    for name, path in source.files(TASKS, "__init__.py"):
        if "register" not in path.read_text(encoding="utf-8"):
            continue
        module = source.module(name)
        for node in ast.walk(module.tree) if module else ():
            if module and isinstance(node, ast.Call) and ast.unparse(node.func).endswith("gym.register"):
                entry = _read(module, node)
                if entry:
                    found[entry.name] = entry
    return found


def lookup(source: Source, name: str) -> Registration:
    """The registration of a name.

    Raises:
        UserError: there is none; with a near name.
    """
    known = registrations(source)
    if name not in known:
        shown = ", ".join(list(known)[:4])
        raise UserError(
            f"Isaac Lab has no task '{name}' with a configuration class; it has {len(known)}, such as {shown}."
            f"{did_you_mean(name, known)}"
        )
    return known[name]


def _read(module: Module, call: ast.Call) -> Registration | None:
    values = {word.arg: word.value for word in call.keywords if word.arg}
    keywords = values.get("kwargs")
    entries = {}
    if isinstance(keywords, ast.Dict):
        entries = {
            key.value: _text(module, value)
            for key, value in zip(keywords.keys, keywords.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    name, env = _text(module, values.get("id")), _pair(_text(module, values.get("entry_point")))
    cfg = _pair(entries.get("env_cfg_entry_point"))
    if not (name and env and cfg):
        return None
    doc = ast.get_docstring(module.tree) or ""
    return Registration(name, module.name, env, cfg, _pair(entries.get("rsl_rl_cfg_entry_point")), doc)


def _pair(text: str | None) -> tuple[str, str] | None:
    module, colon, name = (text or "").partition(":")
    return (module, name) if colon and name.isidentifier() else None


def _text(module: Module, node: ast.expr | None) -> str | None:
    """The text of a string, an f-string of names, or a class that is named; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_text(module, value) for value in node.values]
        return None if None in parts else "".join(part or "" for part in parts)
    if isinstance(node, ast.FormattedValue):
        return _text(module, node.value)
    if isinstance(node, ast.Name):
        if node.id == "__name__":
            return module.name
        statement = module.defined.get(node.id)
        return _text(module, statement.value) if isinstance(statement, ast.Assign) else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        origin, there = module.imported.get(node.value.id, ("", ""))
        place = f"{origin}.{there}" if there else origin
        if not place:
            return None
        return place if node.attr == "__name__" else f"{place}:{node.attr}"
    return None
