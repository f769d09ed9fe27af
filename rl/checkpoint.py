"""Checkpoints: model_000100.pt (weights, optimiser, generator state) with model_000100.json (readable meta)
beside it.

Both are written whole, the meta last, so a pair that exists is complete; the meta holds size and hash of the .pt file,
so damage shows. A training keeps the last two. Weights are loaded with `weights_only`: a checkpoint from elsewhere
runs no code. A policy is rebuilt from the meta and its weights alone.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rl.config import PPOConfig
from rl.record import read_json, write_atomic, write_json_atomic
from tasks.errors import UserError
from tasks.task import Task

SCHEMA = 1
_META_FIELDS = {"schema": int, "task": str, "task_ref": str, "num_observations": int, "num_actions": int,
                "hidden_dims": list, "activation": str, "obs_normalization": bool, "iteration": int,
                "env_steps": int, "reward_sha256": str}  # fmt: skip
KEPT = 2
"""Checkpoints that a training keeps: the newest, and the one before in case the newest is damaged."""
_LIBRARIES = ("torch", "rsl-rl-lib", "mujoco")


class Policy:
    """A trained policy: observations (N, O) -> actions (N, A), the mean of its Gaussian, without noise."""

    def __init__(self, module: nn.Module, meta: Mapping[str, Any]) -> None:
        self.module = module.eval()
        """The network with its observation normaliser, (N, O) -> (N, A); a plain module, to export."""
        self.meta = dict(meta)
        """Content of the meta file."""

    def __call__(self, observation: Tensor) -> Tensor:
        with torch.no_grad():
            return self.module(observation)

    def to(self, device: str | torch.device) -> Policy:
        """Move the network and return self."""
        self.module.to(device)
        return self


def checkpoint_name(iteration: int) -> str:
    """File name of the checkpoint after `iteration` iterations."""
    return f"model_{iteration:06d}.pt"


def make_meta(task: Task, task_ref: str, num_observations: int, num_actions: int, config: PPOConfig) -> dict[str, Any]:
    """The part of the meta file that a whole training shares."""
    return {
        "schema": SCHEMA,
        "task": task.name,
        "task_ref": task_ref,
        "num_observations": num_observations,
        "num_actions": num_actions,
        "hidden_dims": list(config.hidden_dims),
        "activation": config.activation,
        "obs_normalization": config.obs_normalization,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def save(run_dir: Path, iteration: int, state: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `iteration` and return the path of its .pt file; then remove all but the last two.

    state: nested dicts of tensors and plain values, with "actor_state_dict". meta: the meta file without
    "iteration", "sha256" and "size".
    """
    path = Path(run_dir) / checkpoint_name(iteration)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    write_atomic(path, data)
    proof = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    write_json_atomic(path.with_suffix(".json"), {**meta, "iteration": iteration, **proof})
    for older in _complete(path.parent)[KEPT:]:
        _remove(older)
    return path


def add_to_meta(path: Path, **values: Any) -> None:
    """Add to the meta of checkpoint `path` what became known later, such as its held-out fitness."""
    write_json_atomic(Path(path).with_suffix(".json"), {**read_meta(path), **values})


def latest(run_dir: Path, say: Callable[[str], None] | None = None) -> Path | None:
    """The newest complete and sound checkpoint in a folder, or None. `say` takes a line for each damaged one."""
    for path in _complete(Path(run_dir)):
        try:
            _verified(path, read_meta(path))
        except UserError as error:
            if say is not None:
                say(f"{error} It is passed over.")
            continue
        return path
    return None


def remove_after(run_dir: Path, iteration: int) -> None:
    """Remove checkpoints of later iterations, whole or not: a training that goes on from there makes them anew."""
    for path in Path(run_dir).glob("model_*.pt"):
        if path.name > checkpoint_name(iteration):
            _remove(path)


def _complete(run_dir: Path) -> list[Path]:
    """Checkpoints with both files, newest first."""
    found = [path for path in run_dir.glob("model_*.pt") if path.with_suffix(".json").exists()]
    return sorted(found, key=lambda path: path.name, reverse=True)


def _remove(path: Path) -> None:
    # The meta first: a .pt file alone counts as no checkpoint, a meta alone would be a riddle.
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _verified(path: Path, meta: Mapping[str, Any]) -> bytes:
    """Content of a .pt file. Raises UserError if it is not what its meta says; earlier metas say nothing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    wanted = meta.get("sha256")
    if wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
        sizes = f"{len(data)} bytes, {meta.get('size')} were written" if len(data) != meta.get("size") else "same size"
        raise UserError(
            f"{path}: damaged, its sha256 is not the one in {path.with_suffix('.json').name} ({sizes}); use an earlier "
            "checkpoint, or train again."
        )
    return data


def read_meta(path: Path) -> dict[str, Any]:
    """The meta of checkpoint `path`. Raises UserError if it is missing, damaged or from another version."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected a checkpoint file such as {checkpoint_name(100)}.")
    meta_path = path.with_suffix(".json")
    meta = read_json(meta_path)
    if not isinstance(meta, dict):
        raise UserError(f"{meta_path}: expected an object with fields, got {type(meta).__name__}.")
    if meta.get("schema") != SCHEMA:
        came = meta.get("schema")
        raise UserError(f"{meta_path}: schema {came!r} is not the supported {SCHEMA}: from another version.")
    for name, kind in _META_FIELDS.items():
        if not isinstance(meta.get(name), kind):
            raise UserError(f"{meta_path}: field '{name}' is {meta.get(name)!r}, expected {kind.__name__}.")
    return meta


def check_same(path: Path, meta: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UserError unless the checkpoint with `meta` is one of the training whose `make_meta` is `wanted`."""
    for field, value in wanted.items():
        if field != "libraries" and meta.get(field) != value:
            raise UserError(f"{path}: cannot resume, its {field} is {meta.get(field)!r}, the request's {value!r}.")


def load_state(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state in checkpoint `path`. Raises UserError if it or its meta is missing or damaged."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint.")
    data = _verified(path, read_meta(path))
    try:
        state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: damaged, or no checkpoint of ours ({reason}).") from None
    if not isinstance(state, dict) or "actor_state_dict" not in state:
        raise UserError(f"{path}: holds no policy; expected a checkpoint of a training.")
    return state


def load_policy(path: Path, task: Task | None = None) -> Policy:
    """The policy of checkpoint `path`, on the CPU.

    With `task`, it must be the task of the checkpoint. Raises UserError if it is not, if the file is missing,
    damaged or from another version, or if meta and weights disagree.
    """
    # Here: rsl_rl's libraries take 1.6 s to import, and a search needs the names and metas of checkpoints alone.
    from rl.rsl_adapter import make_actor

    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint.")
    meta = read_meta(path)
    if task is not None and task.name != meta["task"]:
        raise UserError(f"{path}: a policy of task '{meta['task']}', not of '{task.name}'.")
    state = load_state(path)
    config = PPOConfig(
        hidden_dims=tuple(meta["hidden_dims"]),
        activation=meta["activation"],
        obs_normalization=meta["obs_normalization"],
    )
    actor = make_actor(meta["num_observations"], meta["num_actions"], config)
    try:
        actor.load_state_dict(state["actor_state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: weights and meta disagree ({reason}).") from None
    return Policy(actor.as_jit(), meta)
