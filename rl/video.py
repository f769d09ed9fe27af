"""Videos of a policy: one world is rolled out here, and its states are drawn and encoded in a child process.

The rollout is deterministic in the seed. What is drawn is the configuration (qpos) at control steps, in the
task's visual model; `Task.visual_qpos` may show more, such as a goal. `rl.render` finds a renderer; without one
there is no video, one line, and no failure.

Axes: F frames.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mujoco
import numpy as np
import torch

from rl import progress
from rl.acting import Player, actions_of
from rl.render import (
    Reel,
    RenderError,
    dump_frames,
    encode,
    forget_renderer,
    no_renderer_line,
    probe_renderer,
)
from tasks.env import TaskEnv, make_env
from tasks.errors import UserError
from tasks.task import Task

__all__ = ["probe_renderer", "record_frames", "record_video", "rollout"]

DEFAULT_SECONDS = 10.0
"""Longest video where no length is asked for."""
HOLD_S = 1.0
"""How long the last frame of an episode stays that ended by a failure, so that one sees it."""

Say = Callable[[str], None]


def record_video(
    task: Task,
    policy: Player,
    out: Path,
    *,
    seconds: float | None = None,
    seed: int = 0,
    width: int = 320,
    height: int = 240,
    fps: float = 25.0,
    say: Say = print,
) -> Path | None:
    """Film a policy; the file appears whole or not at all.

    Args:
        task: What is simulated.
        policy: Who acts in the one world, without noise.
        out: The .mp4 file; its folder is made.
        seconds: Simulated time. None: one episode up to its end, 10 s at most. A number: that long, and where an
            episode ends earlier the next one begins.
        seed: Of the start state.
        width, height: Pixels, even numbers.
        fps: Most frames per second; the video runs in real time at a whole fraction of the control rate.
        say: Takes the one line where there is no video.

    Returns:
        `out`, or None where nothing here can draw or encode.

    Raises:
        UserError: a number that cannot work.
    """
    renderer = probe_renderer()
    if renderer is None:
        say(no_renderer_line())
        return None
    reel = film(task, policy, seconds=seconds, seed=seed, width=width, height=height, fps=fps)
    return drawn(lambda name, path: encode(reel, name, path), renderer, Path(out), say)


def record_frames(
    task: Task,
    policy: Player,
    folder: Path,
    *,
    count: int = 8,
    seconds: float | None = None,
    seed: int = 0,
    width: int = 320,
    height: int = 240,
    say: Say = print,
) -> list[Path]:
    """Write `count` pictures, evenly spread over what `record_video` would show, as PNG files; [] with no renderer."""
    renderer = probe_renderer()
    if renderer is None:
        say(no_renderer_line())
        return []
    reel = film(task, policy, seconds=seconds, seed=seed, width=width, height=height, fps=25.0)
    chosen = np.unique(np.linspace(0, len(reel.qpos) - 1, max(1, count)).round().astype(int))
    reel = Reel(reel.model, reel.qpos[chosen], reel.camera, width, height, reel.fps)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not _drawn(lambda name: dump_frames(reel, name, folder), renderer, say):
        return []
    return [folder / f"frame_{number:04d}.png" for number in range(len(chosen))]


def film(task: Task, policy: Player, *, seconds: float | None, seed: int, width: int, height: int, fps: float) -> Reel:
    """Roll a policy out and make the reel that a child draws. Raises UserError on a number that cannot work."""
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise UserError(f"the video is {width} x {height}; H.264 needs even numbers of pixels.")
    if not fps > 0:
        raise UserError(f"fps is {fps}; expected a number above 0.")
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"the video is {seconds} s long; expected a number above 0.")
    stride = max(1, math.ceil(1.0 / (fps * task.control_dt_s) - 1e-6))
    states, failed = rollout(task, policy, seconds=seconds, seed=seed)
    real_fps = 1.0 / (stride * task.control_dt_s)
    shown = states[::stride]
    if failed and (len(states) - 1) % stride:
        shown = np.concatenate([shown, states[-1:]])
    return Reel(
        model=binary(task.build_visual_model()),
        qpos=shown,
        camera=task.camera,
        width=width,
        height=height,
        fps=real_fps,
        hold=round(HOLD_S * real_fps) if failed else 0,
    )


def rollout(
    task: Task,
    policy: Player,
    *,
    seconds: float | None = None,
    seed: int = 0,
    on_state: Callable[[TaskEnv], None] = lambda env: None,
) -> tuple[np.ndarray, bool]:
    """States of one world under a policy.

    Args:
        task, policy, seconds, seed: As in `record_video`.
        on_state: Shown the world at each state that is kept.

    Returns:
        qpos of the visual model (F, nq) float64, one row per control step with the start first, and whether the
        last episode ended by a failure just then.
    """
    limit_s = min(task.episode_length_s, DEFAULT_SECONDS) if seconds is None else seconds
    env = make_env(task, 1, seed=seed, num_threads=1)
    states = [_state(env)]
    on_state(env)
    failed = False
    try:
        with torch.no_grad():
            for _ in range(max(1, round(limit_s / task.control_dt_s))):
                step = env.step(actions_of(policy, env))
                progress.beat("video")
                failed = bool(step.terminated[0])
                # Once an episode has ended the world holds the start of the next one.
                if seconds is None and bool(step.done[0]):
                    break
                states.append(_state(env))
                on_state(env)
    finally:
        env.close()
    return np.stack(states), failed and seconds is None


def _state(env: TaskEnv) -> np.ndarray:
    """Configuration (nq,) of the visual model for the one world of `env`."""
    return env.task.visual_qpos(env.sim.qpos, env.sim.memory)[0].cpu().numpy().astype(np.float64)


def binary(model: mujoco.MjModel) -> bytes:
    """A model in MuJoCo's binary format."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def drawn(draw: Callable[[str, Path], None], renderer: str, out: Path, say: Say) -> Path | None:
    """Have `draw` (renderer, path) write a video to `out`, whole or not at all; None, and a line to `say`, if not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.stem}.{os.getpid()}.part{out.suffix or '.mp4'}")
    try:
        if not _drawn(lambda name: draw(name, part), renderer, say):
            return None
        if not part.is_file() or part.stat().st_size == 0:
            say("no video: the encoder wrote nothing.")
            return None
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return out


def _drawn(draw: Callable[[str], None], renderer: str, say: Say) -> bool:
    """Draw with a renderer; where it fails, look once whether another works by now (its library may be gone)."""
    for name in _renderers(renderer):
        try:
            draw(name)
        except RenderError as error:
            problem = f"no video: {name} failed ({error})."
            continue
        return True
    say(problem)
    return False


def _renderers(first: str) -> Iterator[str]:
    yield first
    forget_renderer()
    found = probe_renderer()
    if found is not None and found != first:
        yield found
