"""What the Warp backend says to Warp itself: opening a device, two kernels, capturing a graph.

Axes: N worlds, nq/nv/nu as in MuJoCo.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import warp as wp

from tasks.errors import UserError

MAX_VALUE = 1e10
"""What MuJoCo takes for divergence in positions, velocities and accelerations (mjMAXVAL)."""

wp.set_module_options({"enable_backward": False})


@wp.func
def _is_bad(value: float, limit: float) -> bool:
    return not (wp.abs(value) <= limit)


@wp.func
def _put(
    world: int,
    new_qpos: wp.array2d(dtype=float),
    new_qvel: wp.array2d(dtype=float),
    eq_active0: wp.array(dtype=bool),
    time: wp.array(dtype=float),
    qpos: wp.array2d(dtype=float),
    qvel: wp.array2d(dtype=float),
    qacc: wp.array2d(dtype=float),
    warmstart: wp.array2d(dtype=float),
    ctrl: wp.array2d(dtype=float),
    act: wp.array2d(dtype=float),
    eq_active: wp.array2d(dtype=bool),
):
    """A world at time 0 with nothing remembered; row 0 of the new state serves all where there is only one."""
    row = world % new_qpos.shape[0]
    for i in range(qpos.shape[1]):
        qpos[world, i] = new_qpos[row, i]
    for i in range(qvel.shape[1]):
        qvel[world, i] = new_qvel[world % new_qvel.shape[0], i]
        qacc[world, i] = 0.0
        warmstart[world, i] = 0.0
    for i in range(ctrl.shape[1]):
        ctrl[world, i] = 0.0
    for i in range(act.shape[1]):
        act[world, i] = 0.0
    for i in range(eq_active.shape[1]):
        eq_active[world, i] = eq_active0[i]
    time[world] = 0.0


@wp.kernel
def start_worlds(
    chosen: wp.array(dtype=int),
    new_qpos: wp.array2d(dtype=float),
    new_qvel: wp.array2d(dtype=float),
    eq_active0: wp.array(dtype=bool),
    time: wp.array(dtype=float),
    qpos: wp.array2d(dtype=float),
    qvel: wp.array2d(dtype=float),
    qacc: wp.array2d(dtype=float),
    warmstart: wp.array2d(dtype=float),
    ctrl: wp.array2d(dtype=float),
    act: wp.array2d(dtype=float),
    eq_active: wp.array2d(dtype=bool),
):
    world = wp.tid()
    if chosen[world] != 0:
        _put(world, new_qpos, new_qvel, eq_active0, time, qpos, qvel, qacc, warmstart, ctrl, act, eq_active)


@wp.kernel
def catch_divergence(
    limit: float,
    diverged: wp.array(dtype=int),
    new_qpos: wp.array2d(dtype=float),
    new_qvel: wp.array2d(dtype=float),
    eq_active0: wp.array(dtype=bool),
    time: wp.array(dtype=float),
    qpos: wp.array2d(dtype=float),
    qvel: wp.array2d(dtype=float),
    qacc: wp.array2d(dtype=float),
    warmstart: wp.array2d(dtype=float),
    ctrl: wp.array2d(dtype=float),
    act: wp.array2d(dtype=float),
    eq_active: wp.array2d(dtype=bool),
):
    world = wp.tid()
    bad = wp.int32(0)
    for i in range(qpos.shape[1]):
        if _is_bad(qpos[world, i], limit):
            bad = 1
    for i in range(qvel.shape[1]):
        if _is_bad(qvel[world, i], limit) or _is_bad(qacc[world, i], limit):
            bad = 1
    if bad != 0:
        diverged[world] = 1
        _put(world, new_qpos, new_qvel, eq_active0, time, qpos, qvel, qacc, warmstart, ctrl, act, eq_active)


@contextmanager
def placed(device: Any) -> Iterator[Any]:
    """Within it Warp works on a device, in torch's current stream there (yielded; None on the CPU): arrays and tensors
    are then written and read in the order of the program."""
    with wp.ScopedDevice(device):
        if not device.is_cuda:
            yield None
            return
        stream = wp.stream_from_torch(torch.cuda.current_stream(wp.device_to_torch(device)))
        with wp.ScopedStream(stream):
            yield stream


def captured(device: Any, work: Callable[[], None]) -> Any:
    """`work` as a graph. Garbage is collected before: freeing an array during a capture would break it."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with wp.ScopedCapture(device=device, force_module_load=False) as capture:
            work()
    finally:
        if was_enabled:
            gc.enable()
    return capture.graph


def open_device(device: str) -> Any:
    """Warp's device for a torch device."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cuda", "cpu"):
        raise UserError(f"the warp backend runs on 'cuda' (or on 'cpu', for tests), not on '{device}'.")
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING if kind == "cuda" else wp.LOG_ERROR)
    wp.init()
    if kind == "cpu":
        # The CPU is for tests: there compiling is what takes the time.
        wp.config.optimization_level, wp.config.cpu_compiler_flags = 0, "-march=native"
    elif not torch.cuda.is_available() or not wp.is_cuda_available():
        who = "torch" if not torch.cuda.is_available() else "Warp"
        raise UserError(f"{who} finds no CUDA device for '{device}'; see `eureka doctor`, or use --backend native.")
    return wp.device_from_torch(device)


def cuda_support() -> tuple[str | None, bool]:
    """CUDA version of the driver that Warp finds, None where it finds none; whether graphs may have loops that end
    early."""
    wp.init()
    if not wp.is_cuda_available():
        return None, False
    return ".".join(map(str, wp.get_cuda_driver_version())), bool(wp.is_conditional_graph_supported())
