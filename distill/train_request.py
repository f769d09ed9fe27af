"""What a distillation was asked for, as a file in its folder: experts, config, the generalist that it adds to.

The file is written once, first of all; whoever resumes the folder reads it, and finds out where an expert or a
generalist is not what it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.checkpoint import WEIGHTS
from distill.experts import Expert, load_checkpoint_expert, load_onnx_expert
from distill.train_config import DistillConfig, from_json, to_json
from rl.config import check_types, complete_fields, need
from rl.record import read_json, write_json_atomic
from tasks.errors import UserError

REQUEST = "distill.json"
SCHEMA = 1


@dataclass(frozen=True)
class ExpertFile:
    """Where an expert is."""

    path: str
    """Absolute path of a checkpoint or of an ONNX file."""
    task_ref: str
    """Registry reference of its task."""
    sha256: str
    """Digest of the file."""

    def __post_init__(self) -> None:
        check_types(self, "expert.")

    def load(self) -> Expert:
        """The expert. Raises UserError where it is gone or another one."""
        path = Path(self.path)
        expert = load_onnx_expert(self.task_ref, path) if path.suffix == ".onnx" else load_checkpoint_expert(path)
        if expert.sha256 != self.sha256:
            raise UserError(
                f"{path} is another expert than the one that the distillation began with; bring that one back, or "
                "start anew."
            )
        return expert


@dataclass(frozen=True)
class DistillRequest:
    """A whole distillation. The same request gives the same student on the same machine."""

    experts: tuple[ExpertFile, ...]
    """Who teaches."""
    config: DistillConfig
    """How. With `minutes` its `steps` are found when the training begins."""
    minutes: float = 0.0
    """Minutes that all of it may take, about; 0: the config's steps, however long they take."""
    add_to: str = ""
    """Absolute folder of a generalist that learns more; "": a new one."""
    add_to_sha256: str = ""
    """Digest of its weights."""
    freeze_trunk: bool = False
    """Whether only the adapters of new bodies are trained, and all that was there stays as it is, bit for bit."""
    schema: int = SCHEMA
    """Version of this file's layout."""

    def __post_init__(self) -> None:
        if not self.experts:
            raise UserError("a distillation needs at least one expert: name a run's folder, or TASK=policy.onnx.")
        need(self, "", "a number of minutes, or 0", lambda v: v >= 0, "minutes")
        if self.freeze_trunk and not self.add_to:
            raise UserError("the trunk is frozen of a trained head alone: say which one by --add-to.")
        if self.schema != SCHEMA:
            raise UserError(f"{REQUEST}: schema {self.schema!r} is not the supported {SCHEMA}: from another version.")


def expert_files(experts: Sequence[Expert]) -> tuple[ExpertFile, ...]:
    """Where experts are."""
    return tuple(ExpertFile(str(one.path), one.task_ref, one.sha256) for one in experts)


def weights_digest(generalist: Path) -> str:
    """Digest of a generalist's weights. Raises UserError if there are none."""
    path = Path(generalist) / WEIGHTS
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected the folder of a generalist.") from None


def write_request(request: DistillRequest, folder: Path) -> Path:
    """Write the request into a folder, which is made.

    Raises UserError if the folder holds a distillation already, or cannot be written.
    """
    folder = Path(folder)
    if (folder / REQUEST).exists():
        raise UserError(
            f"{folder} holds a distillation already; go on with --resume {folder}, or choose another --out."
        )
    data: dict[str, Any] = {f.name: getattr(request, f.name) for f in dataclasses.fields(request)}
    data |= {"experts": [dataclasses.asdict(one) for one in request.experts], "config": to_json(request.config)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return write_json_atomic(folder / REQUEST, data)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out.") from None


def read_request(folder: Path) -> DistillRequest:
    """The request in a folder. Raises UserError if it is missing, damaged or of another version."""
    path = Path(folder) / REQUEST
    values = complete_fields(read_json(path), DistillRequest, str(path))
    if not isinstance(values["experts"], list):
        raise UserError(f"{path}: experts is {values['experts']!r}, expected a list.")
    values["experts"] = tuple(
        ExpertFile(**complete_fields(one, ExpertFile, f"{path}: experts[{number}]"))
        for number, one in enumerate(values["experts"])
    )
    return DistillRequest(**values | {"config": from_json(values["config"])})
