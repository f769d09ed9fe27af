"""The house rules of docs/design.md, read from the sources: floors, cycles, doors, sizes, packaging."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAY_IMPORT = {
    "tasks": set(),
    "rewards": {"tasks.signals", "tasks.errors"},
    "rl": {"rewards", "tasks"},
    "distill": {"rl", "tasks"},
    "eureka": {"distill", "rl", "rewards", "tasks"},
}
"""Floor -> floors, or single modules of a floor, that it may import besides itself."""

IMPORT_DOORS = {
    "mujoco.batch": ("tasks/sim_native.py",),
    "mujoco_warp": ("tasks/sim_warp.py",),
    "warp": ("tasks/sim_warp.py", "tasks/sim_warp_device.py"),
    "isaaclab": ("tasks/isaaclab/launch.py",),
    "mujoco_menagerie": ("tasks/robots/menagerie.py",),
    "subprocess": ("rewards/sandbox.py", "rewards/probe.py", "eureka/executors/"),
    "rsl_rl": ("rl/",),
    "ray": ("eureka/executors/ray_cluster.py",),
    "pyarrow": ("distill/dataset/parquet.py",),
    "openai": ("eureka/designers/",),
    "tyro": ("eureka/cli.py", "eureka/commands/"),
}
"""Foreign module -> the files, or folders with a slash, that may import it."""
FORK_DOORS = ("rewards/trial_child.py", "rl/evaluator.py")
"""Files that may start a process by os.fork, besides those that may import subprocess."""
CALL_DOORS = {"exec": ("rewards/trace.py",), "eval": (), "compile": ("rewards/trace.py",), "__import__": ()}
"""Builtin -> the files that may use it."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "imageio_ffmpeg": "imageio[ffmpeg]",
    "rsl_rl": "rsl-rl-lib",
    "mujoco_warp": "mujoco-warp",
    "mujoco_menagerie": "mujoco-menagerie",
    "warp": "mujoco-warp",
}
"""Import name -> distribution, where they differ."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def is_reward_program(path: Path) -> bool:
    """Programs in rewards/library/<task>/ are data: source text that goes through the gate."""
    return len(path.parts) == 4 and path.parts[:2] == ("rewards", "library")


FILES = sorted(
    path.relative_to(ROOT)
    for floor in MAY_IMPORT
    for path in (ROOT / floor).rglob("*.py")
    if not is_reward_program(path.relative_to(ROOT))
)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, node: ast.AST | None = None, *, typing_too: bool = True) -> Iterator[tuple[str, int]]:
    """(absolute name of what is imported, line): also inside functions. `from a import b` gives "a.b"."""
    for child in ast.iter_child_nodes(node or tree(path)):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            package = path.parent.parts[: len(path.parent.parts) - child.level + 1] if child.level else ()
            base = ".".join([*package, *([child.module] if child.module else [])])
            yield from ((f"{base}.{alias.name}", child.lineno) for alias in child.names)
        elif not is_type_checking(child):
            yield from imports(path, child, typing_too=typing_too)
        elif typing_too:
            yield from imports(path, child)
        else:
            for otherwise in child.orelse:
                yield from imports(path, otherwise, typing_too=False)


def dynamic_imports(path: Path) -> Iterator[tuple[str, int]]:
    """Names given to importlib.import_module as a literal."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value), node.lineno


def all_imports(path: Path) -> list[tuple[str, int]]:
    return [*imports(path), *dynamic_imports(path)]


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def at_door(path: Path, doors: tuple[str, ...]) -> bool:
    return any(path.as_posix() == door or (door.endswith("/") and path.as_posix().startswith(door)) for door in doors)


def own_modules(path: Path) -> set[str]:
    """Modules of ours that importing this one imports (names under TYPE_CHECKING are never imported)."""
    found = set()
    for name, _ in [*imports(path, typing_too=False), *dynamic_imports(path)]:
        for candidate in (name, name.rpartition(".")[0]):
            if candidate in MODULES:
                found.add(candidate)
                break
    return found - {module_name(path)}


def report(violations: list[str]) -> None:
    assert not violations, "\n" + "\n".join(violations)


# Findings, one function a rule, so that the tests of the rules at the end can feed them a planted file.


def upward_imports(path: Path) -> list[str]:
    floor = path.parts[0]
    return [
        f"{path}:{line}: floor '{floor}' imports {name}"
        for name, line in all_imports(path)
        if (other := name.split(".")[0]) in MAY_IMPORT
        and other != floor
        and not any(within(name, allowed) for allowed in MAY_IMPORT[floor])
    ]


def door_violations(path: Path) -> list[str]:
    found = []
    for name, line in all_imports(path):
        for foreign, doors in IMPORT_DOORS.items():
            if within(name, foreign) and not at_door(path, doors):
                found.append(f"{path}:{line}: imports {name}; its door is {' or '.join(doors)}")
    for node in ast.walk(tree(path)):
        # The name alone counts, called or not: `run = exec` is no way around. `re.compile` is another's name.
        used = node.id if isinstance(node, ast.Name) else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("builtins", "os"):
            spawns = re.fullmatch(r"system|popen|fork|forkpty|exec[vl]\w*|spawn\w+|posix_spawnp?", node.attr)
            if node.value.id == "builtins":
                used = node.attr
            elif spawns and not at_door(path, (*IMPORT_DOORS["subprocess"], *FORK_DOORS)):
                found.append(f"{path}:{node.lineno}: os.{node.attr} starts a process; its door is that of subprocess")
        if used in CALL_DOORS and not at_door(path, CALL_DOORS[used]):
            found.append(f"{path}:{node.lineno}: uses {used}; its door is {' or '.join(CALL_DOORS[used]) or 'nowhere'}")
    return found


def size_violations(path: Path) -> list[str]:
    found = []
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    if lines > MAX_FILE_LINES:
        found.append(f"{path}: {lines} lines; at most {MAX_FILE_LINES}")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines; at most {MAX_FUNCTION_LINES}")
    return found


def docstring_violations(path: Path) -> list[str]:
    if not ast.get_docstring(tree(path)):
        return [f"{path}: no module docstring"]
    if path.name == "__init__.py" and len(tree(path).body) > 1:
        return [f"{path}: holds more than a docstring"]
    return []


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle for each strongly connected group of modules, found by depth-first search."""
    done: set[str] = set()
    found: list[list[str]] = []

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


def distribution_name(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement)[0].lower().replace("_", "-")


def test_there_is_something_to_check():
    assert len(FILES) > 30
    assert {path.parts[0] for path in FILES} == set(MAY_IMPORT)


def test_imports_go_down_only():
    report([line for path in FILES for line in upward_imports(path)])


def test_no_module_imports_itself_in_a_circle():
    graph = {name: own_modules(path) for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 50  # the edges are really found
    report([" -> ".join(cycle) for cycle in cycles(graph)])


def test_foreign_things_come_through_their_door():
    report([line for path in FILES for line in door_violations(path)])


def test_files_and_functions_are_short():
    report([line for path in FILES for line in size_violations(path)])


def test_modules_say_what_they_are():
    report([line for path in FILES for line in docstring_violations(path)])


def test_every_package_is_packaged():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    with_code = {".".join(path.parent.parts) for path in FILES}
    report([f"{package}: not in pyproject's packages" for package in sorted(with_code - listed)])
    report([f"{package}: in pyproject's packages, but has no __init__.py" for package in sorted(listed)
            if not (ROOT / package.replace(".", "/") / "__init__.py").is_file()])  # fmt: skip


def top_imports(path: Path) -> list[str]:
    """What importing a file imports: modules, and names of modules that may be modules themselves."""
    found = []
    for node in tree(path).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def start_imports(module: str) -> dict[str, str]:
    """What importing a module of ours imports, ours and foreign: name -> the module of ours that does."""
    found, todo = {module: module}, [module]
    for current in todo:
        for name in top_imports(MODULES[current]):
            if name in MODULES and name not in found:
                todo.append(name)
            found.setdefault(name, current)
    return found


@pytest.mark.parametrize("command", ["search", "check", "bench", "report"])
def test_a_search_starts_without_the_libraries_of_trainings_and_tracers(command):
    """torch._dynamo, which tensordict and optimisers import, is half of what a start of torch takes."""
    found = start_imports(f"eureka.commands.{command}")
    slow = [name for name in found if name.split(".")[0] in ("rsl_rl", "tensordict", "onnx") or "_dynamo" in name]
    report([f"{found[name]} imports {name} when `eureka {command}` starts" for name in slow])
    assert "torch" in found and "torch._dynamo" in start_imports("rewards.trial_child"), "nothing is found"


def test_imported_distributions_are_declared():
    """Hard dependencies anywhere; those of an extra only inside a function, where they can be missing, or in a module that
    is their door and that no module imports at its top."""
    hard = {distribution_name(text) for text in PROJECT["project"]["dependencies"]}
    extra = {distribution_name(t) for texts in PROJECT["project"]["optional-dependencies"].values() for t in texts}
    doors = {file for files in IMPORT_DOORS.values() for file in files if file.endswith(".py")}
    asked_for = {name for path in FILES if str(path) not in doors for name in top_imports(path)}
    lazy = {file for file in doors if file.removesuffix(".py").replace("/", ".") not in asked_for}
    found = []
    for path in FILES:
        at_top = set() if str(path) in lazy else {
            node.lineno for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
        for name, line in all_imports(path):
            top = name.split(".")[0]
            if top in MAY_IMPORT or top in sys.stdlib_module_names:
                continue
            wanted = distribution_name(DISTRIBUTIONS.get(top, top))
            if wanted not in hard and (wanted not in extra or line in at_top):
                found.append(f"{path}:{line}: imports {top}; pyproject does not list {wanted} as a dependency")
    report(found)


# The rules themselves: each must see a planted violation.


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Puts a file into an otherwise empty project and returns its path in it."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    tree.cache_clear()

    def write(path: str, text: str) -> Path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return Path(path)

    yield write
    tree.cache_clear()


@pytest.mark.parametrize(
    ("path", "text", "wrong"),
    [
        ("tasks/a.py", "from rl.train import train", True),
        ("tasks/a.py", "def f():\n    import eureka", True),
        ("tasks/a.py", "if TYPE_CHECKING:\n    from rewards.gate import admit", True),
        ("tasks/a.py", "import importlib\nimportlib.import_module('rl.train')", True),
        ("rewards/a.py", "from tasks.signals import Signal\nfrom tasks import errors", False),
        ("rewards/a.py", "from tasks.task import Task", True),
        ("rewards/a.py", "from tasks import env", True),
        ("rl/a.py", "from eureka.search import run_search", True),
        ("rl/a.py", "from rewards.gate import admit\nfrom . import config", False),
        ("distill/a.py", "from rewards.gate import admit", True),
        ("eureka/commands/a.py", "from ..archive import Archive\nfrom distill.flow import x", False),
    ],
)
def test_the_rule_of_floors_sees(plant, path, text, wrong):
    assert bool(upward_imports(plant(path, text))) == wrong


@pytest.mark.parametrize(
    ("path", "text", "wrong"),
    [
        ("tasks/env.py", "from mujoco.batch import Batch", True),
        ("tasks/env.py", "from mujoco import batch", True),
        ("tasks/env.py", "import mujoco", False),
        ("tasks/sim_native.py", "from mujoco.batch import Batch", False),
        ("rl/a.py", "def f():\n    import subprocess", True),
        ("rl/a.py", "import os\nos.system('ls')", True),
        ("eureka/executors/local.py", "import subprocess", False),
        ("eureka/a.py", "from rsl_rl.runners import OnPolicyRunner", True),
        ("eureka/a.py", "import tyro", True),
        ("eureka/a.py", "exec('1')", True),
        ("eureka/a.py", "run = eval", True),
        ("eureka/a.py", "import builtins\nbuiltins.exec('1')", True),
        ("eureka/a.py", "import re\nre.compile('x')\nmodel.eval()", False),
        ("rewards/trace.py", "exec(compile(tree, 'x', 'exec'), scope)", False),
        ("rewards/trace.py", "eval('1')", True),
        ("eureka/designers/transport.py", "import openai", False),
        ("distill/planner.py", "import openai", True),
        ("eureka/executors/ray.py", "import ray", True),
        ("eureka/executors/ray_cluster.py", "import importlib\nimportlib.import_module('ray')", False),
        ("distill/a.py", "import openai", True),
    ],
)
def test_the_rule_of_doors_sees(plant, path, text, wrong):
    assert bool(door_violations(plant(path, text))) == wrong


def test_the_rules_of_size_and_docstrings_see(plant):
    long_function = "def f():\n" + "    x = 1\n" * 60
    assert size_violations(plant("rl/a.py", long_function)) == ["rl/a.py:1: f has 61 lines; at most 60"]
    assert size_violations(plant("rl/b.py", "x = 1\n" * 401)) == ["rl/b.py: 401 lines; at most 400"]
    assert not size_violations(plant("rl/c.py", "def f():\n" + "    x = 1\n" * 59))
    assert docstring_violations(plant("rl/d.py", "x = 1\n"))
    assert docstring_violations(plant("rl/__init__.py", '"""Doc."""\nfrom rl import train\n'))
    assert not docstring_violations(plant("rl/e.py", '"""Doc."""\nx = 1\n'))


def test_the_search_for_cycles_sees():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert not cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()})
