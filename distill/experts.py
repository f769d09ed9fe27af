"""Experts: policies that were trained for one task each, from a checkpoint of ours or as ONNX with a task's name.

An expert is asked for one action at a time and sees what its task's `observe` says, a command's numbers included; the
student is told in words. It is known by the digest of its file.

Axes: N worlds, O observation, A action.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rl.checkpoint import load_policy, read_meta
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tasks.task import Task


@dataclass(frozen=True)
class Expert:
    """Who teaches one task."""

    task: Task
    """What it does."""
    task_ref: str
    """Registry reference of the task."""
    policy: Callable[[Tensor], Tensor]
    """Observation (N, O) -> actions (N, A), raw: the environment clips them to [-1, 1]."""
    path: Path
    """Its file."""
    sha256: str
    """Digest of the file."""

    @property
    def source(self) -> str:
        """A name that no other expert has."""
        return f"{self.task.name} expert {self.sha256[:12]}"


def load_checkpoint_expert(path: Path) -> Expert:
    """The expert in a checkpoint of a training, model_*.pt.

    Raises:
        UserError: the file is missing, damaged or foreign, its task is gone or was changed since.
    """
    path = Path(path)
    policy = load_policy(path)
    ref = read_meta(path)["task_ref"]
    try:
        task = registry.make(ref)
    except UserError as error:
        raise UserError(f"{path}: the expert's task is gone ({ref}); bring it back. {error}") from None
    return _checked(Expert(task, ref, policy, path.resolve(), _digest(path)))


def load_onnx_expert(task_ref: str, path: Path) -> Expert:
    """A policy as ONNX, one input (N, O) and one output (N, A), of a task.

    Raises:
        UserError: no such task or file, the file is no such policy, or it does not fit the task.
    """
    task, path = registry.make(task_ref), Path(path)
    if not path.is_file():
        raise UserError(f"there is no ONNX file {path}.")
    policy = OnnxPolicy(path)
    return _checked(Expert(task, registry.absolute_ref(task_ref), policy, path.resolve(), _digest(path)))


class OnnxPolicy:
    """A network in an ONNX file: observations (N, O) to actions (N, A), on the CPU."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a file that holds no network with one input and one output."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
        except Exception as error:  # onnxruntime's own exceptions share no base class but this one
            raise UserError(f"{path}: damaged, or no ONNX file ({' '.join(str(error).split())[:120]}).") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 2:
            raise UserError(
                f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs, expected one input (N, observation) and "
                "one output (N, actions), as eureka export writes them."
            )
        self._path, self._input, self._output = path, inputs[0].name, outputs[0].name

    def __call__(self, observation: Tensor) -> Tensor:
        """Actions for observations. Raises UserError where the network refuses them."""
        try:
            rows = observation.detach().cpu().numpy().astype(np.float32, copy=False)
            (actions,) = self._session.run([self._output], {self._input: rows})
        except Exception as error:  # as above
            raise UserError(
                f"{self._path}: refuses observations of shape {tuple(observation.shape)} "
                f"({' '.join(str(error).split())[:120]})."
            ) from None
        return torch.from_numpy(np.asarray(actions, dtype=np.float32)).to(observation.device)


def _checked(expert: Expert) -> Expert:
    """The expert, if it gives its task's actions for its task's observations."""
    task = expert.task
    if type(task).build_env is not Task.build_env:
        raise UserError(
            f"{expert.path}: an expert of '{task.name}', a task of another simulator; eureka distill runs MuJoCo's."
        )
    env = make_env(task, 2, num_threads=1)
    try:
        observation = env.observe()
        wanted = (2, env.num_actions)
    finally:
        env.close()
    try:
        found = tuple(expert.policy(observation).shape)
    except (RuntimeError, UserError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{expert.path}: does not take the {observation.shape[1]} numbers that task '{task.name}' shows; the task "
            f"was changed since, or is another one ({reason})."
        ) from None
    if found != wanted:
        raise UserError(
            f"{expert.path}: gives {found[-1]} actions, task '{task.name}' takes {wanted[1]}; the task was changed "
            "since, or is another one."
        )
    return expert


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
