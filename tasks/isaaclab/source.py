"""The source of an Isaac Lab task as a reward designer may read it. Nothing of it is imported.

It starts from what a simulation needs (scene, actions, observations, ends, resets, or the terms of a manager-based
configuration) and takes in what that uses of the task's own package. So the reward's functions are never reached; what
speaks of a reward inside the rest is cut, then settings and attributes that nothing left reads. Base classes and
functions of Isaac Lab itself are named, not shown; of its observation, command and event functions one line is told.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.errors import UserError
from tasks.isaaclab.hidden import NOT_TOLD, says_reward, secrets_of, speaks
from tasks.isaaclab.names import TASKS, Registration
from tasks.isaaclab.package import Definition, Module, Source, bound_names
from tasks.isaaclab.prune import clean_docstring, drop_unread, reads, targets, without_reward, written_place

CONTRACT = (
    "__init__", "_setup_scene", "_pre_physics_step", "_apply_action", "_get_observations", "_get_states", "_get_dones",
    "_reset_idx",
)  # fmt: skip
"""Methods of isaaclab.envs.DirectRLEnv that a task overrides, all but `_get_rewards` (direct_rl_env.py, 2.3)."""
MANAGER_BASED = "ManagerBasedRLEnv"
DIRECT = "DirectRLEnv"
_DOCUMENTED = "isaaclab.envs.mdp"


@dataclass
class TaskSource:
    """What is left of a task's source."""

    registration: Registration
    manager_based: bool
    env_classes: list[ast.ClassDef]
    """The environment's class and its bases in the task's package, the class first."""
    cfg_classes: list[ast.ClassDef]
    """Of the configuration, likewise."""
    shown: dict[tuple[str, str], Definition]
    """All definitions that are shown, cut, by module and name."""
    docs: dict[str, str]
    """What functions of Isaac Lab do that the source names: `mdp.base_lin_vel` -> first sentence."""
    refreshed: list[str]
    """Methods without arguments that the reward calls first, to bring up to date what it reads."""
    rewarded: set[str] = field(default_factory=set)
    """Attributes that the reward sets: its own books, told to nobody."""
    modules: dict[str, Module] = field(default_factory=dict)

    def text(self) -> str:
        """The source for a prompt.

        Raises:
            UserError: something in it speaks of a reward still.
        """
        parts: list[str] = []
        for name in reversed(list(dict.fromkeys(module for module, _ in self.shown))):
            nodes = [d.node for (module, _), d in self.shown.items() if module == name]
            nodes.sort(key=lambda node: node.lineno)
            tree = ast.Module(body=[*_imports(self.modules[name], nodes, self.shown), *nodes], type_ignores=[])
            parts.append(f"# {name}\n" + ast.unparse(ast.fix_missing_locations(tree)))
        if self.docs:
            parts.append("\n".join(["# Functions of Isaac Lab that are named above"]
                                   + [f"# {name}: {doc}" for name, doc in sorted(self.docs.items())]))  # fmt: skip
        text = "\n\n".join(parts)
        for number, line in enumerate(text.splitlines(), 1):
            if says_reward(line):
                raise UserError(
                    f"the source of {self.registration.name} speaks of its reward after all that could be cut, in "
                    f"line {number} of what is left ({line.strip()[:80]}); it is not shown."
                )
        return text


def task_source(source: Source, registration: Registration) -> TaskSource:
    """Read a task.

    Raises:
        UserError: its environment is of a kind that has no single reward, or a class is not where it is registered.
    """
    env, cfg = (_find(source, registration, place) for place in (registration.env, registration.cfg))
    kind = base_kind(source, env)
    chosen = _Selection(source, registration, manager_based=kind == MANAGER_BASED)
    chosen.run(env, cfg)
    refreshed = [] if chosen.manager_based else leading_calls(source, env)
    return TaskSource(
        registration,
        chosen.manager_based,
        chosen.family(env),
        chosen.family(cfg),
        chosen.shown,
        chosen.docs,
        refreshed,
        _set_by_rewards(source, env),
        {module: d.module for (module, _), d in chosen.shown.items()},
    )


def base_kind(source: Source, env: Definition) -> str:
    """DIRECT or MANAGER_BASED: which base class of Isaac Lab an environment has.

    Raises:
        UserError: neither of them.
    """
    for ancestor in ancestry(source, env):
        if ancestor.name in (DIRECT, MANAGER_BASED):
            return ancestor.name
    raise UserError(
        f"{env.name} is no subclass of {DIRECT} or {MANAGER_BASED}; environments of several agents have no single "
        "reward."
    )


def ancestry(source: Source, definition: Definition) -> list[Definition]:
    """A class and its base classes, as far as their source is here, nearest first."""
    found: list[Definition] = []
    waiting = [definition]
    while waiting:
        first = waiting.pop(0)
        if isinstance(first.node, ast.ClassDef) and first.key not in {d.key for d in found}:
            found.append(first)
            bases = [_resolve(source, first.module, base) for base in first.node.bases]
            waiting += [base for base in bases if base]
    return found


def leading_calls(source: Source, env: Definition) -> list[str]:
    """Names of the methods that `_get_rewards` calls first, for nothing but their effect: `self.refresh()`."""
    for ancestor in ancestry(source, env):
        assert isinstance(ancestor.node, ast.ClassDef)
        for member in ancestor.node.body:
            if isinstance(member, ast.FunctionDef) and member.name == "_get_rewards":
                return list(_leading(member))
    return []


def _set_by_rewards(source: Source, env: Definition) -> set[str]:
    places: set[str | None] = set()
    for ancestor in ancestry(source, env):
        for function in ast.walk(ancestor.node) if ancestor.module.name.startswith(TASKS) else ():
            if isinstance(function, ast.FunctionDef) and says_reward(function.name):
                for node in ast.walk(function):
                    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                        places |= {written_place(target) for target in targets(node)}
    return {place[5:] for place in places if place and place.startswith("self.")}


def _leading(function: ast.FunctionDef) -> Iterator[str]:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    for node in body:
        call = node.value if isinstance(node, ast.Expr) else None
        plain = isinstance(call, ast.Call) and not call.args and not call.keywords
        if not (plain and isinstance(call, ast.Call) and ast.unparse(call.func).startswith("self.")):
            return
        name = ast.unparse(call.func)[5:]
        if not name.isidentifier():
            return
        yield name


class _Selection:
    """Which definitions are shown, and what is left of them."""

    def __init__(self, source: Source, registration: Registration, manager_based: bool) -> None:
        self.source, self.registration, self.manager_based = source, registration, manager_based
        self.shown: dict[tuple[str, str], Definition] = {}
        self.docs: dict[str, str] = {}

    def run(self, env: Definition, cfg: Definition) -> None:
        """Select, cut and select again, until nothing changes."""
        roots = [d for d in (env, cfg) if d.module.name.startswith(TASKS)]
        self.families = {d.key: [a.key for a in ancestry(self.source, d) if a.module.name.startswith(TASKS)]
                         for d in (env, cfg)}  # fmt: skip
        self.env_keys, self.cfg_keys = self.families[env.key], self.families[cfg.key]
        self.inherited = _inherited_names(self.source, env) | {"cfg"}
        self.settings = _inherited_names(self.source, cfg) - NOT_TOLD
        self.secrets = secrets_of([d.node for d in ancestry(self.source, env) if d.module.name.startswith(TASKS)
                                   and isinstance(d.node, ast.ClassDef)])  # fmt: skip
        cut: dict[tuple[str, str], Definition] = {}
        while True:
            before = {key: ast.dump(d.node) for key, d in self.shown.items()}
            self.shown, self.docs = {}, {}
            for root in roots:
                self._take(root, cut)
            self._cut()
            if {key: ast.dump(d.node) for key, d in self.shown.items()} == before:
                return

    def family(self, definition: Definition) -> list[ast.ClassDef]:
        """The shown classes of a class and its bases, nearest first."""
        nodes = [self.shown[key].node for key in self.families[definition.key] if key in self.shown]
        return [node for node in nodes if isinstance(node, ast.ClassDef)]

    def _take(self, definition: Definition, cut: dict[tuple[str, str], Definition]) -> None:
        if definition.key in self.shown or says_reward(definition.name) or ".agents." in definition.module.name:
            return
        if definition.key not in cut:
            node = copy.deepcopy(definition.node)
            clean_docstring(node)
            node = self._first_cut(definition.key, node)
            if node is None:
                return
            cut[definition.key] = Definition(definition.module, definition.name, node)
        definition = cut[definition.key]
        self.shown[definition.key] = definition
        for used in reads(definition.node):
            other = _resolve(self.source, definition.module, used)
            if other is None:
                continue
            if other.module.name.startswith(TASKS):
                self._take(other, cut)
            elif other.module.name.startswith(_DOCUMENTED) and isinstance(used, ast.Attribute):
                doc = _first_sentence(other.node)
                if doc and not says_reward(doc):
                    self.docs[ast.unparse(used)] = doc

    def _first_cut(self, key: tuple[str, str], node: ast.stmt) -> ast.stmt | None:
        if isinstance(node, ast.ClassDef) and key in self.env_keys:
            # `cfg: AntEnvCfg` and the like; the configuration is shown by itself.
            node.body = [m for m in node.body if not (isinstance(m, ast.AnnAssign) and m.value is None)]
        return without_reward(node, self.secrets)

    def _cut(self) -> None:
        """Methods that nothing left calls, settings and attributes that nothing left reads."""
        while True:
            before = [ast.dump(d.node) for d in self.shown.values()]
            classes = [self.shown[key].node for key in self.env_keys if key in self.shown]
            methods = {m.name: m for c in classes if isinstance(c, ast.ClassDef) for m in c.body
                       if isinstance(m, ast.FunctionDef)}  # fmt: skip
            called = _reached(methods)
            for node in classes:
                assert isinstance(node, ast.ClassDef)
                node.body = [m for m in node.body if not isinstance(m, ast.FunctionDef) or m.name in called]
                node.body = node.body or [ast.Pass()]
            read = {part.attr for d in self.shown.values() for part in reads(d.node) if isinstance(part, ast.Attribute)}
            for definition in self.shown.values():
                for function in ast.walk(definition.node):
                    if isinstance(function, ast.FunctionDef):
                        drop_unread(function, _kept_attributes(definition.key in self.env_keys, read, self.inherited))
            if not self.manager_based:
                self._drop_settings(read)
            if [ast.dump(d.node) for d in self.shown.values()] == before:
                return

    def _drop_settings(self, read: set[str]) -> None:
        for key, definition in self.shown.items():
            node = definition.node
            if not isinstance(node, ast.ClassDef) or key in self.env_keys:
                continue
            fields = {name for member in node.body for name in bound_names(member)}
            if key not in self.cfg_keys and not fields & read:
                continue  # terms of a manager, which are read one by one without being named
            names = {part.id for member in node.body for part in reads(member) if isinstance(part, ast.Name)}
            kept = read | names | (self.settings if key in self.cfg_keys else set())
            node.body = [m for m in node.body
                         if not isinstance(m, ast.Assign | ast.AnnAssign) or set(bound_names(m)) & kept]  # fmt: skip
            node.body = node.body or [ast.Pass()]


def _kept_attributes(of_env: bool, read: set[str], inherited: set[str]) -> set[str]:
    return read | inherited if of_env else _Everything()


class _Everything(set[str]):
    """A set that holds every name: classes other than the environment keep all their attributes."""

    def __contains__(self, name: object) -> bool:
        return True


def _reached(methods: dict[str, ast.FunctionDef]) -> set[str]:
    found: set[str] = set()
    waiting = [name for name in CONTRACT if name in methods]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [p.attr for p in reads(methods[name]) if isinstance(p, ast.Attribute) and p.attr in methods]
    return found


def _inherited_names(source: Source, definition: Definition) -> set[str]:
    """Names that the base classes outside the task's package define or set on themselves."""
    names: set[str] = set()
    for ancestor in ancestry(source, definition):
        if ancestor.module.name.startswith(TASKS):
            continue
        for node in ast.walk(ancestor.node):
            if isinstance(node, ast.AnnAssign | ast.Assign | ast.FunctionDef):
                names |= set(bound_names(node))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                names.add(node.attr)
    return {name for name in names if not says_reward(name)}


def _find(source: Source, registration: Registration, place: tuple[str, str]) -> Definition:
    module = source.module(place[0])
    found = source.resolve(module, place[1]) if module else None
    if found is None or not isinstance(found.node, ast.ClassDef):
        raise UserError(
            f"{registration.name} is registered with {place[0]}:{place[1]}, which the source does not have."
        )
    return found


def _resolve(source: Source, module: Module, node: ast.expr) -> Definition | None:
    """What a name, or an attribute of a module, stands for."""
    if isinstance(node, ast.Name):
        return source.resolve(module, node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        other = source.imported_module(module, node.value.id)
        return source.resolve(other, node.attr) if other else None
    return None


def _imports(module: Module, nodes: list[ast.stmt], shown: dict[tuple[str, str], Definition]) -> list[ast.stmt]:
    """The module's imports that these nodes use, those of shown definitions aside."""
    used = {part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)}
    elsewhere = {name for _, name in shown}
    kept: list[ast.stmt] = []
    for node in module.tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) and not speaks(node):
            names = [a for a in node.names if (a.asname or a.name.split(".")[0]) in used and a.name not in elsewhere]
            if names and getattr(node, "module", "") != "__future__":
                clone = copy.deepcopy(node)
                clone.names = names
                kept.append(clone)
    return kept


def _first_sentence(node: ast.stmt) -> str:
    doc = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
    return " ".join((doc or "").split("\n\n")[0].split())
