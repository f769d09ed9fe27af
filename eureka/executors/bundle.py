"""What has to travel with a task that is a file, so that a machine which does not have the file can train on it.

A task named in the registry is installed where the packages are. Of a file go the file itself and, where its model is
a file too, that model with all that it refers to (includes, meshes, textures), laid out as they lie here. What a task
reads besides does not travel: a task that cannot be built from the bundle alone is refused before anything trains.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import mujoco

from eureka.executors.travel import Bundle
from tasks import registry
from tasks.errors import UserError

MAX_BYTES = 64 * 2**20
"""Most that the files of one task may hold together."""


def bundle(task_ref: str) -> Bundle | None:
    """The files of a task; None for one that has a name.

    Raises:
        UserError: the task cannot be built, it is too large, or it needs files that do not travel.
    """
    if not registry.is_file_ref(task_ref):
        return None
    task = registry.make(task_ref)
    path = registry.user_file(task)
    assert path is not None  # a task from a file has one
    files = [os.path.abspath(path)]
    if isinstance(task.xml, Path):
        files += _model_files(task.xml, path)
    root = os.path.commonpath([os.path.dirname(name) for name in files])
    total = sum(os.path.getsize(name) for name in files)
    if total > MAX_BYTES:
        raise UserError(
            f"the task {path} and its model hold {total / 2**20:.0f} MiB, at most {MAX_BYTES / 2**20:.0f} travel to "
            "other machines; install it there as a package with an entry point, or train with --executor local."
        )
    relative = os.path.relpath(files[0], root)
    named = registry.absolute_ref(task_ref)
    class_part = named[len(str(path.resolve())) :]  # "", or a colon and the class
    found = Bundle(relative + class_part, {os.path.relpath(name, root): Path(name).read_bytes() for name in files})
    _try(found, path)
    return found


def _model_files(model: Path, task_file: Path) -> list[str]:
    """A model file and what it refers to, as absolute paths. A path that the model gives in full cannot travel."""
    try:
        listed = mujoco.mju_getXMLDependencies(str(model))
    except (ValueError, RuntimeError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{task_file.name}: the files of its model {model} cannot be listed ({reason}).") from None
    missing = [name for name in listed if not os.path.isfile(name)]
    if missing:
        raise UserError(f"{task_file.name}: its model {model} refers to {missing[0]}, which is no file.")
    return list(dict.fromkeys(os.path.abspath(name) for name in listed))


def _try(found: Bundle, path: Path) -> None:
    """Build the task from its bundle in an empty folder. Raises UserError where that needs more than the bundle."""
    advice = "only the file, its model and the model's files travel; give relative paths, or use --executor local"
    with tempfile.TemporaryDirectory(prefix="eureka-task-") as folder:
        try:
            task = registry.make(found.unpack(Path(folder)))
            outside = [name for name in _referred_to(task.xml, Path(folder)) if not _within(name, folder)]
        except (UserError, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(f"{path.name} cannot be trained on other machines: {reason}; {advice}.") from None
    if outside:
        raise UserError(f"{path.name} cannot be trained on other machines: it refers to {outside[0]}; {advice}.")


def _referred_to(xml: str | Path, folder: Path) -> Iterable[str]:
    """The files that a model in a bundle needs; a model that is text has none to bring."""
    if isinstance(xml, Path):
        return mujoco.mju_getXMLDependencies(str(xml))
    if not xml:
        return []  # made of a robot, which the other machine has or downloads
    text = folder / "model-as-text.xml"
    text.write_text(xml, encoding="utf-8")
    own = os.path.abspath(text)
    named = [os.path.abspath(name) for name in mujoco.mju_getXMLDependencies(str(text))]
    # What such a text names is looked for in the working directory, which is another one there.
    return [os.path.relpath(name, folder) if _within(name, str(folder)) else name for name in named if name != own]


def _within(name: str, folder: str) -> bool:
    return os.path.isabs(name) and os.path.abspath(name).startswith(os.path.abspath(folder) + os.sep)
