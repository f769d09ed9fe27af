"""A trained policy as an ONNX file, checked against torch.

The graph holds the observation normaliser: raw observations (N, O) in, the mean actions (N, A) out, N free. Whoever
runs it clips actions to [-1, 1], as the training did. What a robot's software has to know besides stands in the file's
metadata, all of it text (JSON where it is more than a word).

Axes: N batch, O observation, A action.
"""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor, nn

from rl.checkpoint import Policy, load_policy
from rl.record import write_atomic
from tasks import registry
from tasks.env import make_env, sample_signals
from tasks.errors import UserError
from tasks.task import Task

TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and torch that is let pass; actions are of order 1."""
INPUT, OUTPUT = "observation", "actions"
OPSET = 18  # the lowest that torch's exporter writes without converting
_CHECK_WORLDS, _CHECK_STEPS = 16, 50


def export_onnx(checkpoint: Path, out_path: Path) -> dict[str, Any]:
    """Export the policy of a checkpoint and compare it with torch on random and on real observations.

    The file appears only if the comparison passes.

    Args:
        checkpoint: A model_*.pt with its meta file.
        out_path: The .onnx file; its folder is made.

    Returns:
        path, task, num_observations, num_actions, opset, bytes, observations_checked, max_abs_diff_random,
        max_abs_diff_real and max_abs_diff (the larger one).

    Raises:
        UserError: the checkpoint cannot be used, the task it names is not there, the observations do not fit, or ONNX
            Runtime and torch differ by 1e-4 or more.
    """
    import onnx

    policy = load_policy(Path(checkpoint))
    task = registry.make(policy.meta["task_ref"])
    real = _real_observations(task, policy)
    proto = _graph(policy, real[:2])
    described = _metadata(task, policy)
    for name, text in described.items():
        proto.metadata_props.append(onnx.StringStringEntryProto(key=name, value=text))
    proto.doc_string = f"Policy for task '{task.name}': {task.instruction}."
    onnx.checker.check_model(proto)
    data = proto.SerializeToString()

    noise = torch.randn(257, real.shape[1], generator=torch.Generator().manual_seed(0)) * 3.0
    random_diff, real_diff = _difference(data, policy, noise), _difference(data, policy, real)
    worst = max(random_diff, real_diff)
    if not worst < TOLERANCE:  # also when it is NaN
        raise UserError(
            f"ONNX Runtime and torch differ by {worst:.2g} on the policy of {checkpoint}; expected less than "
            f"{TOLERANCE:g}. Nothing was written; try another version of onnxruntime."
        )
    out_path = Path(out_path)
    try:
        out_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out_path, data)
    except OSError as error:
        raise UserError(f"cannot write {out_path}: {error.strerror}; choose another --out.") from None
    return {
        "path": str(out_path),
        "task": task.name,
        "num_observations": int(real.shape[1]),
        "num_actions": policy.meta["num_actions"],
        "opset": next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")),
        "bytes": len(data),
        "observations_checked": len(noise) + len(real),
        "max_abs_diff_random": random_diff,
        "max_abs_diff_real": real_diff,
        "max_abs_diff": worst,
    }


def observation_layout(task: Task, num_envs: int = 64) -> list[dict[str, Any]]:
    """Which signals each column of the observation is made of.

    Found by experiment, since a task computes its observation freely: a signal is exchanged between worlds, and the
    columns that change depend on it.

    Returns:
        Runs of neighbouring columns with the same signals: {"first": 0, "last": 2, "signals": ["torso_position_w"]}.
    """
    signals = sample_signals(task, num_envs, num_steps=20)
    base = task.observe(signals)
    made_of: list[list[str]] = [[] for _ in range(base.shape[1])]
    for name, values in signals.items():
        changed = task.observe({**signals, name: values.roll(1, dims=0)})
        for column in (changed != base).any(dim=0).nonzero()[:, 0].tolist():
            made_of[column].append(name)
    layout: list[dict[str, Any]] = []
    for column, names in enumerate(made_of):
        if layout and layout[-1]["signals"] == names:
            layout[-1]["last"] = column
        else:
            layout.append({"first": column, "last": column, "signals": names})
    return layout


def require_fit(policy: Policy, task: Task, num_observations: int, num_actions: int) -> None:
    """Raise UserError unless the policy has the task's present number of observations and actions."""
    trained = (policy.meta["num_observations"], policy.meta["num_actions"])
    if trained != (num_observations, num_actions):
        raise UserError(
            f"the policy maps {trained[0]} observations to {trained[1]} actions, but task '{task.name}' has "
            f"{num_observations} and {num_actions}: the task was changed since; train again."
        )


def _graph(policy: Policy, example: Tensor) -> Any:
    """The policy's network as an ONNX model with a free batch dimension."""
    return onnx_graph(policy.module, {INPUT: example}, OUTPUT, {INPUT: {0: "N"}})


def onnx_graph(
    module: nn.Module, examples: Mapping[str, Tensor], output: str, free: Mapping[str, Mapping[int, str]]
) -> Any:
    """An ONNX model of a module, without a word on the machine that made it.

    Args:
        module: Takes the examples by position and returns one tensor.
        examples: Input name -> an example of it.
        output: Name of the output.
        free: Input name -> its free dimensions and their names; all others are fixed.
    """
    names = {name for dims in free.values() for name in dims.values()}
    dims = {name: torch.export.Dim(name) for name in names}
    shapes = [{axis: dims[letter] for axis, letter in free.get(name, {}).items()} for name in examples]
    # torch wants the shapes of *args as one tuple within the tuple of all.
    fixed = [p for p in inspect.signature(module.forward).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    rest = shapes[len(fixed) :]
    # Without gradients outside as well, a module's own no_grad is no change that has to be traced.
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            input_names=list(examples),
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=(*shapes[: len(fixed)], tuple(rest)) if rest else tuple(shapes),
            verbose=False,
        )
    assert program is not None, "the exporter returns a program where no file is named"
    proto = program.model_proto
    # The exporter's notes name the source files of the machine that ran it.
    graph = proto.graph
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports torchvision's absence and its own deprecations; none of it is of use here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _difference(data: bytes, policy: Policy, observation: Tensor) -> float:
    """Largest absolute difference of the actions, for the whole batch and for one row alone."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    # "highest": torch may otherwise multiply in bfloat16, which is further off than any export.
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        worst = 0.0
        for batch in (observation, observation[:1]):
            got = np.asarray(session.run([OUTPUT], {INPUT: batch.numpy()})[0])
            expected = policy(batch).numpy()
            if got.shape != expected.shape:
                raise UserError(f"the ONNX graph gives actions {got.shape}, torch {expected.shape}.")
            # np.fmax would drop a NaN, np.maximum keeps it.
            worst = float(np.maximum(worst, np.abs(got - expected).max()))
        return worst
    finally:
        torch.set_float32_matmul_precision(precision)


def _real_observations(task: Task, policy: Policy) -> Tensor:
    """Observations (N, O) that the policy meets in its task."""
    env = make_env(task, _CHECK_WORLDS, seed=0, num_threads=1)
    try:
        require_fit(policy, task, env.num_observations, env.num_actions)
        seen = [env.observe()]
        for _ in range(_CHECK_STEPS):
            seen.append(env.step(policy(seen[-1])).observation)
        return torch.cat(seen)
    finally:
        env.close()


def _metadata(task: Task, policy: Policy) -> dict[str, str]:
    model = task.build_model()
    actuators = [model.actuator(index) for index in range(model.nu)]
    one_axis = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
    joints = [model.joint(index).name for index in range(model.njnt) if int(model.jnt_type[index]) in one_axis]
    return {
        "task": task.name,
        "instruction": task.instruction,
        "control_rate_hz": f"{1.0 / task.control_dt_s:g}",
        "observation_doc": inspect.getdoc(type(task).observe) or "",
        "observation_layout": json.dumps(observation_layout(task)),
        "observation_normalised_inside": json.dumps(policy.meta["obs_normalization"]),
        "action_range": json.dumps([-1.0, 1.0]),
        "action_doc": task.action_doc,
        "actuator_names": json.dumps([actuator.name for actuator in actuators]),
        "actuator_ctrlrange": json.dumps([actuator.ctrlrange.tolist() for actuator in actuators]),
        "joint_names": json.dumps(joints),
        "iteration": str(policy.meta["iteration"]),
        "reward_sha256": policy.meta["reward_sha256"],
    }
