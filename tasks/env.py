"""N worlds of a task as a vectorised environment: step, time limit, auto-reset.

It does not know rewards: a step returns the signals of the state it reached, before any reset, and whoever
trains computes the reward from them. `terminated` (a failure, the value of what follows is zero) and `truncated`
(the time limit, what follows is merely not played) are never both true.

Axes: N worlds, O observation, A action. Gymnasium's terms are used as Gymnasium defines them.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.errors import UserError, did_you_mean
from tasks.randomize import Pushes, draw
from tasks.signals import Signals
from tasks.sim import Simulation
from tasks.subset import ChosenWorlds, WorldSubset
from tasks.task import Task, check_task

BACKENDS = ("native", "warp")
_ROOMS: dict[tuple[type[Task], str], Any] = {}
"""What tasks were found to need in MuJoCo Warp, by task and device."""
RANDOMIZE_SEED = 7_000_003
"""Added to an environment's seed for what differs between its worlds."""
INSTALL_WARP = "pip install 'eureka-skills[gpu]'"

Reward = Callable[[Signals], tuple[Tensor, dict[str, Tensor]]]
"""Signals of N worlds -> total (N,), components (N,) each."""


@dataclass
class EnvStep:
    """What one step of N worlds gave."""

    observation: Tensor
    """(N, O), after the auto-reset: of the new episode where the old one ended."""
    signals: Signals
    """The state this step reached, before any reset."""
    terminated: Tensor
    """(N,) bool: the episode ended by a failure or a diverged simulation."""
    truncated: Tensor
    """(N,) bool: the episode reached its time limit."""
    reasons: dict[str, Tensor]
    """Failure reason -> (N,) bool; "diverged" is always there. Several may hold for one world."""
    done: Tensor
    """(N,) bool: terminated or truncated."""


class TaskEnv:
    """A task on a simulation. Make one with `make_env`."""

    def __init__(self, task: Task, sim: Simulation, seed: int, pushes: Pushes | None = None) -> None:
        self.task = task
        self.sim = sim
        self.num_envs = sim.num_envs
        self.device = sim.device
        self.num_actions = int(sim.model.nu)
        self.max_episode_steps = max(1, math.floor(task.episode_length_s / task.control_dt_s + 1e-6))
        self.episode_step = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self._no_world = self.episode_step[:0]
        self._rng = torch.Generator(device=self.device).manual_seed(seed)
        for name in ("actions", "previous_actions"):
            sim.memory[name] = torch.zeros(self.num_envs, self.num_actions, device=self.device)
        self._pushes = pushes
        self._all = torch.arange(self.num_envs, device=self.device)
        with self._placed():
            task.setup(sim)
        self._check_memory()
        self._observation = self.reset()
        self.num_observations = int(self._observation.shape[1])

    def reset(self) -> Tensor:
        """Start a new episode in every world. Returns the observation (N, O)."""
        self._reset_worlds(self._all)
        signals = self.task.signals(self.sim)
        self.task.signal_table.validate(signals, self.num_envs)
        self._observation = self.task.observe(signals)
        self._signals, self._stale = signals, self._no_world
        if self._observation.ndim != 2 or self._observation.shape[0] != self.num_envs:
            raise UserError(
                f"task '{self.task.name}': observe() gave shape {tuple(self._observation.shape)}, "
                f"expected ({self.num_envs}, O)."
            )
        return self._observation

    def observe(self) -> Tensor:
        """The present observation (N, O)."""
        return self._observation

    def observe_told(self) -> Tensor:
        """The present observation (N, O') of a policy that is told by words, see `Task.observe_told`."""
        if type(self.task).observe_told is Task.observe_told:
            return self._observation
        return self._observe(self._signals, self._stale, self.task.observe_told)

    def set_command(self, env_ids: Tensor, index: Tensor) -> None:
        """Tell worlds env_ids (n,) commands index (n,) that hold until the next call, see `Task.set_command`. What the
        expert observes says so at once.

        Raises:
            UserError: the task has no commands, or not so many.
        """
        self.task.set_command(self.sim, env_ids, index)
        self._stale = torch.cat([self._stale, env_ids]).unique()
        self._observation = self._observe(self._signals, self._stale, self.task.observe)

    def step(self, actions: Tensor) -> EnvStep:
        """Play one control step.

        Args:
            actions: (N, A); clipped to [-1, 1].
        """
        memory = self.sim.memory
        memory["previous_actions"] = memory["actions"]
        memory["actions"] = actions.detach().to(torch.float32).clamp(-1.0, 1.0)
        if self._pushes is not None:
            self.sim.add_velocity(self._pushes.next())
        self.task.act(self.sim, memory["actions"])
        self.sim.step()
        self.episode_step += 1

        signals = self.task.signals(self.sim)
        reasons = dict(self.task.terminate(signals))
        reasons["diverged"] = self.sim.diverged
        terminated = torch.stack(tuple(reasons.values())).any(dim=0)
        truncated = (self.episode_step >= self.max_episode_steps) & ~terminated
        done = terminated | truncated

        with self._placed():
            changed = self.task.update(self.sim, signals, self._rng)
        if self.sim.asynchronous:
            self.reset_where(done)
            self._signals, self._stale = self.task.signals(self.sim), self._no_world
            self._observation = self.task.observe(self._signals)
        else:
            ended = done.nonzero(as_tuple=True)[0]
            if ended.numel():
                self._reset_worlds(ended)
            self._signals, self._stale = signals, ended if changed is None else (changed | done).nonzero()[:, 0]
            self._observation = self._observe(signals, self._stale, self.task.observe)
        return EnvStep(self._observation, signals, terminated, truncated, reasons, done)

    def replace_reward(self, reward: Reward) -> Reward:
        """Say which reward trains. Ours have none of their own: whoever trains computes it from a step's signals."""
        return reward

    def log_apart(self) -> dict[str, float]:
        """Figures for people that no designer may see, since the last call; ours have none."""
        return {}

    def collect_overflows(self) -> dict[str, int]:
        """Worlds in which the simulation left out contacts since the last call, by what ran out; {} where none."""
        return self.sim.collect_overflows()

    def close(self) -> None:
        """Release the simulation."""
        self.sim.close()

    def _observe(self, signals: Signals, stale: Tensor, observe: Callable[[Signals], Tensor]) -> Tensor:
        """An observation (N, O), for which the signals of worlds `stale` (n,) are computed again, and only theirs."""
        if stale.numel() == self.num_envs:
            return observe(self.task.signals(self.sim))
        observation = observe(signals)
        if not stale.numel():
            return observation
        fresh = observe(self.task.signals(WorldSubset(self.sim, stale)))
        # Out of place: an observation may be a view of a signal.
        return observation.index_copy(0, stale, fresh)

    def _check_memory(self) -> None:
        for name, tensor in self.sim.memory.items():
            if tensor.ndim < 1 or tensor.shape[0] != self.num_envs:
                raise UserError(
                    f"task '{self.task.name}': memory['{name}'] has shape {tuple(tensor.shape)}, expected "
                    f"({self.num_envs}, ...), one row a world; what all worlds share belongs in sim.constants."
                )

    def _reset_worlds(self, env_ids: Tensor) -> None:
        for name in ("actions", "previous_actions"):
            # Out of place: signals handed out earlier may hold these very tensors.
            self.sim.memory[name] = self.sim.memory[name].index_fill(0, env_ids, 0.0)
        with self._placed():
            self.task.reset(self.sim, env_ids, self._rng)
        self.episode_step.index_fill_(0, env_ids, 0)

    def reset_where(self, ended: Tensor, rng: torch.Generator | None = None) -> None:
        """New episodes in worlds `ended` (N,) bool, without asking which these are; observations are not renewed.
        `rng` draws in place of the generator of all resets, whose later draws then stay what they would be."""
        worlds = ChosenWorlds(self.sim, ended)
        for name in ("actions", "previous_actions"):
            self.sim.memory[name] = torch.zeros_like(self.sim.memory[name])
        with self._placed():
            self.task.reset(worlds, self._all, rng or self._rng)
        worlds.settle()
        self.episode_step.masked_fill_(ended, 0)

    def _placed(self) -> AbstractContextManager[object]:
        """Within it, tensors that name no device are made on the simulation's. On a CPU they are anyway."""
        return nullcontext() if self.device == "cpu" else torch.device(self.device)


def make_env(
    task: Task,
    num_envs: int,
    *,
    seed: int = 0,
    num_threads: int = 0,
    backend: str = "native",
    device: str | None = None,
    randomize: bool = False,
) -> TaskEnv:
    """Build N worlds of a task.

    Args:
        task: What to simulate.
        num_envs: N.
        seed: Of every random draw of resets; equal seeds give equal episodes on the same backend and device.
        num_threads: Physics threads, 0 for all cores; the native backend's.
        backend: "native" (MuJoCo's C engine) or "warp" (MuJoCo Warp, on a GPU).
        device: Where tensors live. None: the task's own choice, or with "warp" the current CUDA device. The native
            backend has "cpu" only.
        randomize: Whether worlds differ as the task's `randomize` table says.

    Raises:
        UserError: the task's declaration is wrong or has no such table, or the backend is unknown, not installed or
            cannot use the device.
    """
    check_backend(backend)
    if type(task).build_env is not Task.build_env and (backend != "native" or randomize):
        raise UserError(f"task '{task.name}' comes with its own simulator; leave --backend and --randomize away.")
    foreign = task.build_env(num_envs, seed=seed, device=device or task.default_device())
    if foreign is not None:
        return foreign
    check_task(task)
    device = device or default_device(task, backend)
    make = _warp_simulation if backend == "warp" else _native_simulation
    sim = make(task, num_envs, num_threads, device)
    return TaskEnv(task, sim, seed, _randomized(task, sim, seed) if randomize else None)


def _randomized(task: Task, sim: Simulation, seed: int) -> Pushes | None:
    """Give each world its own numbers; the pushes of the task's table."""
    table = task.randomize
    if table is None:
        raise UserError(f"task '{task.name}' has no randomize table (tasks/randomize.py); leave --randomize away.")
    sim.set_parameters(draw(sim.model, table, sim.num_envs, seed + RANDOMIZE_SEED))
    if table.push is None:
        return None
    return Pushes(table.push, sim.model, sim.num_envs, task.control_dt_s, sim.device, seed + RANDOMIZE_SEED)


def check_backend(backend: str) -> None:
    """Raises UserError for the name of no backend."""
    if backend not in BACKENDS:
        raise UserError(f"unknown backend '{backend}'; known: {', '.join(BACKENDS)}.{did_you_mean(backend, BACKENDS)}")


def require_backend(backend: str, device: str) -> None:
    """Raises UserError where worlds cannot be simulated so on this machine, before anything is made for them."""
    check_backend(backend)
    if backend != "warp":
        return
    missing = [name for name in ("warp", "mujoco_warp") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the warp backend needs {' and '.join(missing)}, not installed here: {INSTALL_WARP}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"torch finds no CUDA device for '{device}'; see `eureka doctor`, or use --backend native.")


def default_device(task: Task, backend: str) -> str:
    """torch device of the worlds where none is asked for."""
    return "cuda" if backend == "warp" else task.default_device()


def _native_simulation(task: Task, num_envs: int, num_threads: int, device: str) -> Simulation:
    if device != "cpu":
        raise UserError(
            f"the native backend keeps its tensors on the CPU, not on '{device}'; use device 'cpu', or --backend warp."
        )
    from tasks.sim_native import NativeSimulation

    model = task.build_model()
    return NativeSimulation(model, num_envs, task.substeps(model), num_threads)


def _warp_simulation(task: Task, num_envs: int, num_threads: int, device: str) -> Simulation:
    require_backend("warp", device)
    from tasks.sim_warp import WarpSimulation
    from tasks.warp_room import Room, measure_room

    model = task.build_model()
    substeps = task.substeps(model)

    def play(worlds: int, room: Room) -> TaskEnv:
        return TaskEnv(task, WarpSimulation(model, worlds, substeps, device, room), seed=0)

    key = (type(task), device)
    if key not in _ROOMS:
        _ROOMS[key] = measure_room(play, device)
    return WarpSimulation(model, num_envs, substeps, device, _ROOMS[key])


def sample_signals(task: Task, num_envs: int, num_steps: int = 50, seed: int = 0, num_threads: int = 0) -> Signals:
    """Signals of real states under random actions, one (N, dims) tensor each.

    Every world is stopped at a random step of its rollout, so that the sample holds starts, motion and falls.
    Actions are uniform in [-1, 1] and held for a random number of steps, which reaches more of the state space than
    white noise does.
    """
    env = make_env(task, num_envs, seed=seed, num_threads=num_threads)
    rng = torch.Generator().manual_seed(seed + 1)
    stop = torch.randint(1, num_steps + 1, (num_envs, 1), generator=rng)
    actions = torch.zeros(num_envs, env.num_actions)
    sampled = {name: torch.zeros(num_envs, task.signal_table[name].dims) for name in task.signal_table.names}
    for step in range(1, num_steps + 1):
        fresh = torch.rand(num_envs, env.num_actions, generator=rng) * 2.0 - 1.0
        switch = torch.rand(num_envs, 1, generator=rng) < 0.2
        actions = torch.where(switch, fresh, actions)
        signals = env.step(actions).signals
        for name, kept in sampled.items():
            sampled[name] = torch.where(stop == step, signals[name].cpu(), kept)
    env.close()
    return sampled
