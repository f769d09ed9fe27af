"""`eureka train`: one policy under one reward, in this process, with its progress on the terminal."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eureka.commands.places import parse_settings, with_settings
from eureka.finals import EVAL_SEED
from eureka.named_reward import find_reward
from rl.checkpoint import load_policy
from rl.config import config_for
from rl.failures import disk_full
from rl.record import REQUEST, RESULT, TrainRequest, read_request, write_json_atomic, write_request
from rl.train import train
from rl.video import record_video
from tasks import registry
from tasks.env import check_backend, default_device
from tasks.errors import UserError, did_you_mean
from tasks.task import Task


@dataclass(frozen=True)
class Train:
    """Train one policy under one reward and measure it on held-out episodes."""

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")] = ""
    """A task's name, or a Python file. Not with --resume."""
    reward: str = "human"
    """human, sparse, zero, a reward file, or the folder of a search or of a recording (its best reward)."""
    seed: int = 0
    """Seed of worlds, weights and exploration."""
    iterations: int | None = None
    """Rollouts, each followed by an update; the task's own number when not given."""
    num_envs: int | None = None
    """Worlds simulated in parallel; the task's own number when not given."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Any other training setting, as in --set ppo.gamma=0.98."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    backend: str = "native"
    """What simulates the worlds: native (MuJoCo on the CPU) or warp (MuJoCo Warp on a GPU)."""
    device: str | None = None
    """torch device of worlds and policy, as in cuda:1; the backend's own when not given."""
    randomize: bool = False
    """Let worlds differ as the task's randomize table says; the fitness is measured in worlds that are all alike."""
    time_limit_s: float | None = None
    """Seconds after which the training ends, without a fitness."""
    out: Path | None = None
    """The run's folder; runs/TASK/train/TIME when not given."""
    resume: Path | None = None
    """Go on with the interrupted training in this folder, from its newest checkpoint."""
    video: bool = False
    """Film the trained policy."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> int:
        """Train; exit code 1 where the training ended without a fitness."""
        if self.resume is not None:
            request, run_dir = self._interrupted(self.resume), self.resume
        else:
            request, run_dir = self._new()
        task = registry.make(request.task)
        say = Console(stderr=True, highlight=False, soft_wrap=True).print
        if not self.json:
            say(
                f"{request.run_id}: {task.name}, reward {request.reward_origin}, "
                f"{request.config.env_steps:,} steps -> {run_dir}"
            )
        try:
            with _Bar(task, request, shown=not self.json) as bar:
                result = train(
                    request, run_dir, on_iteration=bar.update, on_damaged=say, resume=self.resume is not None
                )
        except UserError:
            if self.resume is None:
                _forget(run_dir)
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; go on with eureka train --resume {run_dir}") from None
        except OSError as error:
            if not disk_full(error):
                raise
            raise UserError(
                f"the disk of {run_dir} is full, or a quota is used up; make room and go on with eureka train --resume "
                f"{run_dir}."
            ) from None
        if request.video and result["status"] == "ok":
            result = _film(request, task, run_dir, result, say)
        self._print(result, task, run_dir)
        return 0 if result["status"] == "ok" else 1

    def _new(self) -> tuple[TrainRequest, Path]:
        if not self.task:
            raise UserError(f"eureka train needs a task; known: {', '.join(registry.names())}, or a Python file.")
        if self.seed < 0 or self.threads < 0:
            raise UserError(f"--seed is {self.seed}, --threads is {self.threads}; expected numbers of at least 0.")
        check_backend(self.backend)
        task = registry.make(self.task)
        task.check_runnable()
        settings = with_settings(parse_settings(self.set), iterations=self.iterations, num_envs=self.num_envs)
        config = config_for(task, settings)
        reward = find_reward(self.reward, task, self.task)
        run_dir = self.out or _free_folder(task.name)
        if (run_dir / REQUEST).exists():
            raise UserError(
                f"{run_dir} holds a training already; go on with --resume {run_dir}, or choose another --out."
            )
        request = TrainRequest(
            run_id=run_dir.resolve().name,
            task=registry.absolute_ref(self.task),
            reward=reward.text,
            reward_origin=reward.origin,
            config=config,
            seed=self.seed,
            backend=self.backend,
            device=self.device or default_device(task, self.backend),
            randomize=self.randomize,
            eval_seed=EVAL_SEED,
            threads=self.threads,
            time_limit_s=self.time_limit_s,
            video=self.video,
        )
        try:
            write_request(request, run_dir)
        except OSError as error:
            raise UserError(f"cannot write to {run_dir}: {error.strerror}; choose another --out.") from None
        return request, run_dir

    def _interrupted(self, folder: Path) -> TrainRequest:
        if not folder.is_dir():
            near = (
                did_you_mean(folder.name, [p.name for p in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
            )
            raise UserError(f"there is no folder {folder} to resume.{near}")
        if self.task or self.set or self.iterations is not None or self.num_envs is not None or self.out is not None:
            raise UserError("--resume goes on with the training as it was asked for; leave TASK and settings away.")
        return read_request(folder)

    def _print(self, result: dict[str, Any], task: Task, run_dir: Path) -> None:
        if self.json:
            print(json.dumps({**result, "folder": str(run_dir)}, indent=1))
            return
        if result["status"] != "ok":
            error = result["error"] or {}
            print(f"{result['status']}: {error.get('message', 'the training failed')}")
            return
        fitness = f"{result['fitness']:.4g} +- {result['fitness_std']:.2g} {task.fitness_unit}"
        print(f"fitness {fitness} over {result['eval']['episodes']} held-out episodes ({task.fitness_doc})")
        print(f"{result['env_steps']:,} steps in {result['wall_s']:.1f} s ({result['steps_per_s']:,.0f} steps/s)")
        for name in ("checkpoint", "video"):
            if result[name]:
                print(f"{name}: {run_dir / result[name]}")


class _Bar:
    """One bar: iterations, fitness of the last finished episodes, speed, time left. Nothing where it is not shown, and
    a line now and then where the output is no terminal."""

    def __init__(self, task: Task, request: TrainRequest, shown: bool) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.unit = task.fitness_unit
        self.total = request.config.iterations
        self.shown = shown
        self.fitness: float | None = None
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.progress = Progress(*columns, console=self.console, transient=True)
        self.bar = self.progress.add_task("starts", total=self.total)

    def __enter__(self) -> _Bar:
        if self.shown and self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.console.is_terminal:
            self.progress.stop()

    def update(self, metrics: dict[str, Any]) -> None:
        """Show one iteration's metrics."""
        if isinstance(metrics["fitness"], float):
            self.fitness = metrics["fitness"]
        fitness = "no episode has ended yet" if self.fitness is None else f"fitness {self.fitness:.3g} {self.unit}"
        text = f"{fitness}  {metrics['steps_per_s']:,.0f} steps/s"
        if self.shown and metrics.get("overflow"):
            lost = ", ".join(f"{worlds} worlds ({kind})" for kind, worlds in metrics["overflow"].items())
            self.console.print(f"iteration {metrics['iteration']}: contacts were left out in {lost}; made more room")
        if self.console.is_terminal:
            self.progress.update(self.bar, completed=metrics["iteration"], description=text)
        elif self.shown and metrics["iteration"] % max(1, self.total // 10) == 0:
            self.console.print(f"iteration {metrics['iteration']}/{self.total}  {text}")


def _forget(run_dir: Path) -> None:
    """Take back the request of a training that was refused before it began, so that its folder can be used again."""
    if [path.name for path in run_dir.iterdir()] == [REQUEST]:
        (run_dir / REQUEST).unlink()
        run_dir.rmdir()


def _free_folder(task_name: str) -> Path:
    folder = Path("runs") / task_name / "train" / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    while folder.exists():
        folder = folder.with_name(folder.name + "x")
    return folder


def _film(
    request: TrainRequest, task: Task, run_dir: Path, result: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    say("filming")
    policy = load_policy(run_dir / result["checkpoint"], task)
    path = record_video(task, policy, run_dir / "video.mp4", seed=request.eval_seed, say=say)
    result = {**result, "video": path.name if path else None}
    write_json_atomic(run_dir / RESULT, result)
    return result
