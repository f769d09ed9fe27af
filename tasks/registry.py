"""Names of tasks: what exists, and how to get one.

A task is named (`ant-run`), is a file of the user's (`my_task.py`, `my_task.py:MyTask`), or one of Isaac Lab's
(`isaaclab:Isaac-Ant-Direct-v0`). Installed packages add names by the entry point group `eureka_skills.tasks` (name ->
"module:Class"). Nothing is imported until it is asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path

from tasks.errors import UserError, did_you_mean
from tasks.task import Task, check_task

ENTRY_POINT_GROUP = "eureka_skills.tasks"
ISAACLAB = "isaaclab:"

_BUILT_IN: dict[str, str] = {
    "cartpole-balance": "tasks.classic.cartpole:CartpoleBalance",
    "cartpole-swingup": "tasks.classic.cartpole:CartpoleSwingup",
    "ball-balance": "tasks.classic.ball_balance:BallBalance",
    "quadcopter-hover": "tasks.classic.quadcopter:QuadcopterHover",
    "ant-run": "tasks.locomotion.ant:AntRun",
    "humanoid-run": "tasks.locomotion.humanoid:HumanoidRun",
    "ant-command": "tasks.locomotion.ant_command:AntCommand",
    "humanoid-command": "tasks.locomotion.humanoid_command:HumanoidCommand",
    "anymal-velocity": "tasks.locomotion.anymal_velocity:AnymalVelocity",
    "g1-velocity": "tasks.locomotion.g1_velocity:G1Velocity",
    "x2-hover": "tasks.classic.quadcopter:X2Hover",
    "franka-cabinet": "tasks.manipulation.franka_cabinet:FrankaCabinet",
    "allegro-reorient": "tasks.dexterous.allegro_reorient:AllegroReorient",
    "shadow-reorient": "tasks.dexterous.shadow_reorient:ShadowReorient",
    "shadow-pen-spin": "tasks.dexterous.shadow_pen_spin:ShadowPenSpin",
    "shadow-over": "tasks.bimanual.over:ShadowOver",
    "shadow-catch-underarm": "tasks.bimanual.catch_underarm:ShadowCatchUnderarm",
    "shadow-door-open-outward": "tasks.bimanual.door_open_outward:ShadowDoorOpenOutward",
    "shadow-scissors": "tasks.bimanual.scissors:ShadowScissors",
    "shadow-bottle-cap": "tasks.bimanual.bottle_cap:ShadowBottleCap",
    "shadow-block-stack": "tasks.bimanual.block_stack:ShadowBlockStack",
    "ant-tour": "tasks.locomotion.ant_tour:AntTour",
    "humanoid-tour": "tasks.locomotion.humanoid_tour:HumanoidTour",
    "quadcopter-command": "tasks.classic.quadcopter_command:QuadcopterCommand",
    "quadcopter-tour": "tasks.classic.quadcopter_command:QuadcopterTour",
}
_registered: dict[str, str] = dict(_BUILT_IN)


def register(name: str, target: str) -> None:
    """Add a task under a name. target is "module:Class".

    Raises:
        UserError: the name is taken by another target.
    """
    if _registered.get(name, target) != target:
        raise UserError(f"a task named '{name}' exists already ({_registered[name]}); choose another name.")
    _registered[name] = target


def _targets() -> dict[str, str]:
    targets = dict(_registered)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if targets.get(point.name, point.value) != point.value:
            raise UserError(
                f"the installed package of '{point.value}' registers a task '{point.name}', "
                f"which {targets[point.name]} has already; uninstall one of them."
            )
        targets[point.name] = point.value
    return targets


def names() -> list[str]:
    """All registered names, built-in ones first."""
    return list(_targets())


def is_file_ref(ref: str) -> bool:
    """Whether a reference means a file rather than a registered name."""
    path = _split_ref(ref)[0]
    return not ref.startswith(ISAACLAB) and (path.endswith(".py") or "/" in path)


def absolute_ref(ref: str) -> str:
    """The reference with its file's path made absolute, so that it holds in another working directory."""
    if not is_file_ref(ref):
        return ref
    path, class_name = _split_ref(ref)
    resolved = str(Path(path).expanduser().resolve())
    return f"{resolved}:{class_name}" if class_name else resolved


def make(ref: str) -> Task:
    """Build a task from a name, from a file `path.py` or `path.py:Class`, or from Isaac Lab's registry.

    Raises:
        UserError: nothing of that name, no such file, or the file holds no task or several.
    """
    if is_file_ref(ref):
        return _make_from_file(ref)
    if ref.startswith(ISAACLAB):
        from tasks.isaaclab.task import from_reference

        return from_reference(ref)
    targets = _targets()
    if ref not in targets:
        raise UserError(
            f"unknown task '{ref}'; known: {', '.join(targets)}, or a Python file.{did_you_mean(ref, targets)}"
        )
    module_name, _, class_name = targets[ref].partition(":")
    try:
        task_class = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # an installed package may fail in any way while it is imported
        reason = " ".join(str(error).split())
        raise UserError(f"task '{ref}' cannot be loaded from {targets[ref]}: {reason}") from error
    return _build(task_class, ref)


def user_file(task: Task) -> Path | None:
    """The file of a task that is not ours: its human and sparse rewards lie beside it. None for a built-in task."""
    cls = type(task)
    return None if cls.__module__.startswith("tasks.") else Path(inspect.getfile(cls))


def _split_ref(ref: str) -> tuple[str, str]:
    head, colon, tail = ref.rpartition(":")
    return (head, tail) if colon and tail.isidentifier() and head.endswith(".py") else (ref, "")


def _make_from_file(ref: str) -> Task:
    path_text, class_name = _split_ref(ref)
    path = Path(path_text).expanduser().resolve()
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise UserError(f"no task file {path_text}.{near}")
    module = _import_file(path)
    found = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Task) and value.__module__ == module.__name__
    }
    if class_name:
        if class_name not in found:
            raise UserError(f"{path.name} holds no task class '{class_name}'.{did_you_mean(class_name, found)}")
        return _build(found[class_name], ref)
    concrete = {name: value for name, value in found.items() if hasattr(value, "name")} or found
    if len(concrete) != 1:
        listed = ", ".join(concrete) or "none"
        raise UserError(
            f"{path.name} holds {len(concrete)} task classes ({listed}); expected one, or name it: {path.name}:Class"
        )
    return _build(next(iter(concrete.values())), ref)


def _import_file(path: Path):
    """Import a file once per path; its folder is not put on sys.path."""
    module_name = f"eureka_task_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        line = getattr(error, "lineno", None) or _error_line(error, path)
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name}, line {line}: {type(error).__name__}: {reason}") from error
    return module


def _error_line(error: Exception, path: Path) -> int | str:
    """The deepest line of the file itself in an exception's traceback."""
    line: int | str = "?"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _build(task_class: type[Task], ref: str) -> Task:
    if not (inspect.isclass(task_class) and issubclass(task_class, Task)):
        raise UserError(f"task '{ref}' is not a subclass of tasks.task.Task.")
    task = task_class()
    check_task(task)
    return task
