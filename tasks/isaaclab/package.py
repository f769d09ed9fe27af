"""Isaac Lab's source where it is installed, as syntax trees. Nothing of it is imported or run.

It knows three layouts: the wheel (`site-packages/isaaclab/source/isaaclab_tasks/isaaclab_tasks`), a checkout named by
ISAACLAB_PATH (the variable that Isaac Lab's own scripts set), and packages installed one by one. It does not know what
a task is; `tasks.isaaclab.names` does.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tasks.errors import UserError

PACKAGES = ("isaaclab", "isaaclab_tasks", "isaaclab_assets", "isaaclab_rl")
_PROOF = {"isaaclab": "envs/direct_rl_env.py"}
"""A file that only the package itself has: the wheel has another `isaaclab` above it."""
PATH_VARIABLE = "ISAACLAB_PATH"
INSTALL = "pip install 'isaaclab[isaacsim]==2.3.*' --extra-index-url https://pypi.nvidia.com (Python 3.11)"


@dataclass
class Module:
    """One file: its names and where they come from."""

    name: str
    path: Path
    tree: ast.Module
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    """Name -> the statement that binds it; the last one where there are several."""
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name -> (module, name there); the second is "" where the name is the module itself."""
    starred: list[str] = field(default_factory=list)
    """Modules of which everything is imported."""


@dataclass(frozen=True)
class Definition:
    """A class, function or assignment, and its file."""

    module: Module
    name: str
    node: ast.stmt

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other one."""
        return self.module.name, self.name


class Source:
    """The installed packages, read file by file when asked for."""

    def __init__(self, roots: dict[str, Path]) -> None:
        """`roots`: package -> its folder."""
        self.roots = roots
        self._modules: dict[str, Module | None] = {}

    def files(self, package: str, pattern: str) -> Iterator[tuple[str, Path]]:
        """(name of the module, file) of a package's files whose name matches."""
        root = self.roots[package]
        for path in sorted(root.rglob(pattern)):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)]), path

    def module(self, name: str) -> Module | None:
        """A module by its dotted name; None where it is none of these packages or has no such file."""
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def resolve(self, module: Module, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Definition | None:
        """Where a name of a module is defined, followed through imports; None where that is outside these packages."""
        if (module.name, name) in seen:
            return None
        seen = seen | {(module.name, name)}
        if name in module.defined:
            return Definition(module, name, module.defined[name])
        if name in module.imported:
            origin, there = module.imported[name]
            other = self.module(origin)
            return self.resolve(other, there, seen) if other and there else None
        for origin in module.starred:
            other = self.module(origin)
            found = self.resolve(other, name, seen) if other else None
            if found:
                return found
        return None

    def imported_module(self, module: Module, name: str) -> Module | None:
        """The module that a name of a module stands for, as in `import a.b as name` or `from a import name`."""
        if name not in module.imported:
            return None
        origin, there = module.imported[name]
        return self.module(f"{origin}.{there}" if there else origin)

    def _read(self, name: str) -> Module | None:
        package, *parts = name.split(".")
        if package not in self.roots:
            return None
        base = self.roots[package].joinpath(*parts)
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if not path.is_file():
            return None
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as Python: {' '.join(str(error).split())}") from error
        module = Module(name, path, tree)
        _gather(module, tree.body, is_package=path.name == "__init__.py")
        return module


def bound_names(node: ast.stmt) -> list[str]:
    """The plain names that a statement binds, imports aside."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    return [
        leaf.id
        for target in targets
        for leaf in ast.walk(target)
        if isinstance(leaf, ast.Name) and isinstance(leaf.ctx, ast.Store)
    ]


def _gather(module: Module, body: list[ast.stmt], is_package: bool) -> None:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                module.imported[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0],
                    "",
                )
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(module, node, is_package)
            for alias in node.names:
                if alias.name == "*":
                    module.starred.append(origin)
                else:
                    module.imported[alias.asname or alias.name] = (origin, alias.name)
        elif isinstance(node, ast.If | ast.Try):  # TYPE_CHECKING, optional imports
            _gather(module, [*node.body, *node.orelse], is_package)
        for name in bound_names(node):
            module.defined[name] = node


def _absolute(module: Module, node: ast.ImportFrom, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def find_source() -> Source:
    """The installed source.

    Raises:
        UserError: none is installed; the line says how to install it.
    """
    return _source(os.environ.get(PATH_VARIABLE, ""), tuple(sys.path))


@cache
def _source(isaaclab_path: str, path: tuple[str, ...]) -> Source:
    bases = []
    if isaaclab_path:
        bases.append(Path(isaaclab_path).expanduser())
    bases += _installed("isaaclab")
    roots = {}
    for package in PACKAGES:
        places = [base / "source" / package / package for base in bases] + _installed(package)
        found = next((place for place in places if (place / _PROOF.get(package, "__init__.py")).is_file()), None)
        if found:
            roots[package] = found
    missing = [package for package in PACKAGES[:2] if package not in roots]
    if missing:
        wrong = f" {PATH_VARIABLE} is {isaaclab_path}, which has no source/{missing[0]}." if isaaclab_path else ""
        raise UserError(
            f"Isaac Lab's source is not installed ({', '.join(missing)} not found).{wrong} {INSTALL}; with --no-deps "
            f"and without the extra it is enough for eureka show. Or set {PATH_VARIABLE} to a checkout."
        )
    return Source(roots)


def _installed(package: str) -> list[Path]:
    """Folders of a top-level package; finding it does not import it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
