"""Where robots come from: mujoco_menagerie, as a local copy or downloaded on first use.

`MENAGERIE_ROOT`, where it is set, names a local copy of github.com/google-deepmind/mujoco_menagerie and nothing is
downloaded. Without it DeepMind's package `mujoco-menagerie` fetches a robot once into its cache (`MENAGERIE_CACHE_DIR`,
or the platform's cache folder) and checks it against a digest. Only `robot_folder` and what calls it use the network.

Does not edit models; `tasks.robots.edit` does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import mujoco

from tasks.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from mujoco_menagerie import Robot

ROOT_VARIABLE = "MENAGERIE_ROOT"
_COPY_HINT = f"set {ROOT_VARIABLE} to a local copy of github.com/google-deepmind/mujoco_menagerie"


def robot_spec(robot: str, file: str) -> mujoco.MjSpec:
    """An editable spec of a robot as shipped.

    Args:
        robot: Folder in Menagerie, such as "unitree_g1"; downloaded where it is not here.
        file: An .xml file of that folder, such as "g1.xml".

    Raises:
        UserError: the robot is unknown, is not in the local copy, cannot be downloaded, has no such file, or MuJoCo
            cannot read it.
    """
    folder = robot_folder(robot)
    path = folder / file
    if not path.is_file():
        known = sorted(entry.name for entry in folder.glob("*.xml"))
        listed = ", ".join(known) or "no .xml at all"
        hint = did_you_mean(file, known)
        raise UserError(f"robot '{robot}' has no file '{file}' in {folder}; it has {listed}.{hint}")
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise UserError(f"MuJoCo cannot read {path}: {' '.join(str(error).split())}") from error


def robot_folder(robot: str) -> Path:
    """The folder of a robot on this machine, downloaded first where it has to be. Raises UserError as `robot_spec`."""
    root = _root()
    if root is not None:
        reason = _missing_from(root, robot)
        if reason:
            raise UserError(reason)
        return root / robot
    return _download(_registered(robot))


def robot_available(robot: str) -> bool:
    """Whether the robot is on this machine, so that nothing would be downloaded."""
    return missing_reason(robot) is None


def missing_reason(robot: str) -> str | None:
    """Why a robot is not on this machine, in one line; None if it is. Looks at the disk only."""
    root = _root()
    if root is not None:
        return _missing_from(root, robot)
    from mujoco_menagerie import Cache

    try:
        found = _registered(robot)
    except UserError as error:
        return str(error)
    if Cache().is_cached(found):
        return None
    size = f" ({found.download_size / 2**20:.1f} MiB)" if found.download_size else ""
    return f"robot '{robot}' is not on this machine: it is downloaded{size} on first use, or {_COPY_HINT}."


def _root() -> Path | None:
    """The local copy; an empty variable counts as none."""
    named = os.environ.get(ROOT_VARIABLE)
    return Path(named).expanduser().absolute() if named else None


def _missing_from(root: Path, robot: str) -> str | None:
    """Why a local copy does not have a robot. It may hold robots that the package does not know."""
    if (root / robot).is_dir():
        return None
    if not root.is_dir():
        return f"{ROOT_VARIABLE}={root} is no folder; {_COPY_HINT}, or unset it to download robots."
    here = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    published = _published()
    if robot not in published:
        return f"unknown robot '{robot}'.{did_you_mean(robot, [*here, *published]) or _where_listed()}"
    listed = ", ".join(here) or "no robots"
    return (
        f"robot '{robot}' is not in {ROOT_VARIABLE}={root}, which holds {listed}; "
        "copy it there, or unset the variable to download it."
    )


def _published() -> list[str]:
    """Names of all robots that the package can download."""
    import mujoco_menagerie

    return mujoco_menagerie.names()


def _registered(robot: str) -> Robot:
    """A robot's entry in the package's registry. Raises UserError for an unknown name."""
    import mujoco_menagerie

    try:
        return mujoco_menagerie.get(robot)
    except mujoco_menagerie.UnknownRobotError:
        hint = did_you_mean(robot, _published()) or _where_listed()
        raise UserError(f"unknown robot '{robot}'.{hint}") from None


def _where_listed() -> str:
    return " `mujoco-menagerie names` lists those that there are."


def _download(robot: Robot) -> Path:
    """The robot's folder in the package's cache, with a progress bar while it is fetched.

    Raises:
        UserError: no network, a damaged archive, or a cache that cannot be written.
    """
    from mujoco_menagerie import Cache, DownloadError, MenagerieError

    cache = Cache()
    if cache.is_cached(robot):
        return cache.resolve(robot)
    try:
        return _resolve_with_bar(cache, robot)
    except DownloadError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"robot '{robot.name}' could not be downloaded ({reason}): check the network, or {_COPY_HINT}."
        ) from error
    except (MenagerieError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"robot '{robot.name}' could not be stored in {cache.dir}: {reason}") from error


def _resolve_with_bar(cache, robot: Robot) -> Path:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("downloading {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(robot.name, total=robot.download_size)

        def advance(name: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or robot.download_size)

        return cache.resolve(robot, advance)
