"""The state of a running distillation on the disk: state_000500.pt with state_000500.json beside it.

As with checkpoints of a training (`rl.checkpoint`): both are written whole, the meta last, with size and hash of the
other, so that damage shows; the last two are kept; loaded with `weights_only`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rl.record import read_json, write_atomic, write_json_atomic
from tasks.errors import UserError

SCHEMA = 1
KEPT = 2


def save_state(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps, then remove all but the last two. state: nested dicts of tensors and plain
    values."""
    path = Path(folder) / f"state_{step:06d}.pt"
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    write_atomic(path, data)
    meta = {"schema": SCHEMA, "step": step, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    write_json_atomic(path.with_suffix(".json"), meta)
    for older in _complete(Path(folder))[KEPT:]:
        older.with_suffix(".json").unlink(missing_ok=True)
        older.unlink(missing_ok=True)
    return path


def latest_state(folder: Path, say: Callable[[str], None] | None = None) -> dict[str, Any] | None:
    """The newest sound state in a folder, or None where there is none yet. `say` takes a line for each damaged one.

    Raises UserError where there are states and none is sound: to start over in silence would be worse.
    """
    damaged = []
    for path in _complete(Path(folder)):
        try:
            return _load(path)
        except UserError as error:
            damaged.append(str(error))
            if say is not None:
                say(f"{error} It is passed over.")
    if damaged:
        raise UserError(f"{damaged[0]} There is no sound state before it; start anew in another folder.")
    return None


def _complete(folder: Path) -> list[Path]:
    """States with both files, newest first."""
    return sorted((p for p in folder.glob("state_*.pt") if p.with_suffix(".json").exists()), reverse=True)


def _load(path: Path) -> dict[str, Any]:
    meta = read_json(path.with_suffix(".json"))
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise UserError(f"{path.with_suffix('.json')}: not written by this version.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if hashlib.sha256(data).hexdigest() != meta.get("sha256"):
        raise UserError(f"{path}: damaged ({len(data)} bytes, {meta.get('size')} were written).")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: no state of a distillation ({reason}).") from None
