"""`eureka evaluate`, `play` and `export`: what to do with a trained policy."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from eureka.commands import generalists
from eureka.commands.places import find_checkpoint
from eureka.finals import EVAL_SEED
from rl.acting import Player, actions_of
from rl.checkpoint import Policy, load_policy
from rl.evaluate import evaluate
from rl.export import export_onnx, require_fit
from rl.video import record_video
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tasks.task import Task

Place = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained policy on held-out episodes, without noise on its actions."""

    run_or_checkpoint: Place
    """Folder of a run, a search or a generalist, or a model_*.pt file."""
    episodes: int = 64
    """Episodes, each in a world of its own."""
    seed: int = EVAL_SEED
    """Seed of the episodes."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    json: bool = False
    """Print JSON."""
    generalist: Annotated[generalists.EvaluateOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=generalists.EvaluateOptions
    )

    def run(self) -> int:
        """Print the fitness and how the episodes ended."""
        for name, least in (("episodes", 1), ("seed", 0), ("threads", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; expected at least {least}.")
        folder = generalists.find_generalist(self.run_or_checkpoint)
        if folder is not None:
            return generalists.evaluate(folder, self.generalist, self.episodes, self.seed, self.threads, self.json)
        self.generalist.refuse()
        checkpoint, policy, task = _load(self.run_or_checkpoint)
        policy.to(task.default_device())
        found = evaluate(task, policy, episodes=self.episodes, seed=self.seed, num_threads=self.threads)
        if self.json:
            data = dataclasses.asdict(found) | {"per_episode": found.per_episode.tolist()}
            print(
                json.dumps(
                    {"checkpoint": str(checkpoint), "task": task.name, "unit": task.fitness_unit, **data}, indent=1
                )
            )
            return 0
        ends = [f"{count} {reason}" for reason, count in found.terminations.items()]
        ends += [f"{found.truncations} reached the time limit"] if found.truncations else []
        print(f"{checkpoint}: {task.name}")
        print(
            f"fitness {found.fitness:.4g} +- {found.fitness_std:.2g} {task.fitness_unit} over {self.episodes} episodes"
        )
        print(f"episodes last {found.episode_length_s:.2f} s of {task.episode_length_s:g} s; ends: {', '.join(ends)}")
        return 0


@dataclass(frozen=True)
class Play:
    """Film a trained policy, or watch it in a window."""

    run_or_checkpoint: Place
    """Folder of a run, a search or a generalist, or a model_*.pt file."""
    out: Path | None = None
    """The .mp4 file; play.mp4 beside the checkpoint when not given."""
    seconds: float | None = None
    """Length; one episode when not given, 10 s at most."""
    seed: int = 0
    """Seed of the start state."""
    width: int = 320
    """Pixels, an even number."""
    height: int = 240
    """Pixels, an even number."""
    viewer: bool = False
    """Open MuJoCo's viewer instead, where there is a display."""
    generalist: Annotated[generalists.PlayOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=generalists.PlayOptions
    )

    def run(self) -> int:
        """Film or show it. Without a renderer one line says what to install, and the exit code is 0."""
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}; expected at least 0.")
        folder = generalists.find_generalist(self.run_or_checkpoint)
        if folder is not None and self.viewer:
            _watch(*generalists.player_of(folder, self.generalist, self.seed), self.seed)
            return 0
        if folder is not None:
            return generalists.play(folder, self.generalist, self.out, self.seconds, self.seed, self.width, self.height)
        self.generalist.refuse()
        checkpoint, policy, task = _load(self.run_or_checkpoint)
        if self.viewer:
            _watch(task, policy, self.seed)
            return 0
        out = self.out or checkpoint.with_name("play.mp4")
        size: dict[str, Any] = {"width": self.width, "height": self.height}
        began = time.monotonic()
        try:
            path = record_video(task, policy, out, seconds=self.seconds, seed=self.seed, **size)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}; choose another --out.") from None
        if path is not None:
            print(f"{path} ({time.monotonic() - began:.0f} s to film)")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a trained policy as ONNX, checked against torch; its metadata says what goes in and out."""

    run_or_checkpoint: Place
    """Folder of a run, a search or a generalist, or a model_*.pt file."""
    out: Path | None = None
    """The .onnx file; policy.onnx beside the checkpoint when not given. For a generalist a folder, its onnx/."""
    json: bool = False
    """Print the report as JSON."""
    generalist: Annotated[generalists.Options, tyro.conf.OmitArgPrefixes] = field(default_factory=generalists.Options)

    def run(self) -> int:
        """Export and print how closely ONNX Runtime follows torch."""
        folder = generalists.find_generalist(self.run_or_checkpoint)
        if folder is not None:
            return generalists.export(folder, self.generalist, self.out, self.json)
        self.generalist.refuse()
        checkpoint = find_checkpoint(self.run_or_checkpoint)
        report = export_onnx(checkpoint, self.out or checkpoint.with_name("policy.onnx"))
        if self.json:
            print(json.dumps(report, indent=1))
        else:
            sizes = f"observation (N, {report['num_observations']}) -> actions (N, {report['num_actions']})"
            print(f"{report['path']}: {sizes}, opset {report['opset']}, {report['bytes']:,} bytes")
            print(
                f"ONNX Runtime differs from torch by at most {report['max_abs_diff']:.1e} "
                f"over {report['observations_checked']} observations"
            )
        return 0


def _load(place: Path) -> tuple[Path, Policy, Task]:
    checkpoint = find_checkpoint(place)
    policy = load_policy(checkpoint)
    task = registry.make(policy.meta["task_ref"])
    env = make_env(task, 1, num_threads=1)
    sizes = (env.num_observations, env.num_actions)
    env.close()
    require_fit(policy, task, *sizes)
    return checkpoint, policy, task


def _watch(task: Task, policy: Player, seed: int) -> None:
    """Show the policy in MuJoCo's passive viewer, in real time, until its window is closed."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("there is no display here (DISPLAY is not set); without --viewer a video is written.")
    import mujoco.viewer

    env = make_env(task, 1, seed=seed, num_threads=1)
    model = task.build_model()
    data = mujoco.MjData(model)
    try:
        with mujoco.viewer.launch_passive(model, data) as window, torch.no_grad():
            while window.is_running():
                began = time.monotonic()
                env.step(actions_of(policy, env))
                data.qpos[:] = env.sim.qpos[0].numpy()
                mujoco.mj_forward(model, data)
                window.sync()
                time.sleep(max(0.0, task.control_dt_s - (time.monotonic() - began)))
    except RuntimeError as error:  # on macOS the viewer needs to be started by mjpython
        raise UserError(f"MuJoCo's viewer does not start ({error}); without --viewer a video is written.") from None
    finally:
        env.close()
