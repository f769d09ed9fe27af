"""One simulation of K x N worlds, of which candidate k owns the slice [k N, (k + 1) N).

Physics, signals and observations are computed for all worlds at once. What draws at random (starts of episodes, new
goals and commands) is asked for slice by slice, with a generator of each candidate's own, so that a candidate's
episodes depend on its own seed and actions alone, and are those of a lone training. What a task sets in a reset is
gathered and handed to the simulation once. A task sees a slice through `SliceSimulation`.

A simulation on a device (`tasks.sim.Simulation.asynchronous`) draws for every world in every step, with one generator
for all, and uses what it needs: what a slice gets depends on its place and on no other's fate, and costs the launches
of one slice, but is not what a lone training of its seed would get.

Axes: K candidates, N worlds of each, O observation, A action; (K N, ...) is (K, N, ...) in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, MutableMapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tasks.env import RANDOMIZE_SEED, EnvStep, TaskEnv, make_env
from tasks.errors import UserError
from tasks.randomize import Pushes, draw
from tasks.signals import Signals
from tasks.sim import Simulation
from tasks.subset import WorldSubset
from tasks.task import Task


class SliceSimulation:
    """The worlds [start, start + num_envs) of a simulation as a `tasks.sim.Simulation` of their own, for a task's
    `reset` and `update`. What they change is kept here until `Slices.apply`, or until it is read."""

    def __init__(self, whole: Simulation, start: int, num_envs: int) -> None:
        self._whole = whole
        self._start = start
        self._worlds = slice(start, start + num_envs)
        self.num_envs = num_envs
        self.device = whole.device
        self.asynchronous = whole.asynchronous
        self.model = whole.model
        self.physics_dt_s = whole.physics_dt_s
        self.substeps = whole.substeps
        self.constants = whole.constants
        self.memory: MutableMapping[str, Tensor] = _SliceMemory(whole, self._worlds)
        self.states: list[tuple[Tensor, Tensor, Tensor]] = []
        """What `set_state` was told and the simulation was not: worlds of the whole, qpos, qvel."""

    @property
    def qpos(self) -> Tensor:
        """Generalised positions (N, nq)."""
        return self._told().qpos[self._worlds]

    @property
    def qvel(self) -> Tensor:
        """Generalised velocities (N, nv)."""
        return self._told().qvel[self._worlds]

    @property
    def diverged(self) -> Tensor:
        """Worlds whose last step blew up, (N,) bool."""
        return self._whole.diverged[self._worlds]

    def sensor(self, name: str) -> Tensor:
        """A named MJCF sensor (N, dim)."""
        return self._told().sensor(name)[self._worlds]

    def set_state(self, env_ids: Tensor, qpos: Tensor, qvel: Tensor, where: Tensor | None = None) -> None:
        """Put worlds env_ids (n,) of the slice, or those of them `where` (n,) bool, into a new state."""
        if where is not None:
            env_ids, qpos, qvel = env_ids[where], qpos[where], qvel[where]
        if env_ids.numel():
            self.states.append((env_ids + self._start, qpos, qvel))

    def forward(self, env_ids: Tensor | None = None) -> None:
        """Recompute sensors of worlds env_ids (n,) of the slice, or of all of it."""
        ids = torch.arange(self.num_envs, device=self.device) if env_ids is None else env_ids
        self._told().forward(ids + self._start)

    def set_ctrl(self, ctrl: Tensor) -> None:
        """No slice has controls of its own."""
        raise UserError("a task's reset() or update() set controls; set them in act().")

    def step(self) -> None:
        """No slice is stepped by itself."""
        raise UserError("a task's reset() or update() stepped the simulation, which a population cannot do.")

    def collect_overflows(self) -> dict[str, int]:
        """Asked of the whole simulation only."""
        return {}

    def close(self) -> None:
        """The whole simulation is not the slice's to close."""

    def _told(self) -> Simulation:
        for each in self.states:
            self._whole.set_state(*each)
        self.states.clear()
        return self._whole


class _SliceMemory(MutableMapping[str, Tensor]):
    """A slice's rows of a simulation's memory, with what was replaced meanwhile."""

    def __init__(self, whole: Simulation, worlds: slice) -> None:
        self._whole = whole
        self._worlds = worlds
        self.replaced: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.replaced[name] if name in self.replaced else self._whole.memory[name][self._worlds]

    def __setitem__(self, name: str, value: Tensor) -> None:
        wanted = self._whole.memory[name][self._worlds].shape
        if value.shape != wanted:
            raise UserError(f"memory['{name}'] was set to shape {tuple(value.shape)}, expected {tuple(wanted)}.")
        self.replaced[name] = value

    def __delitem__(self, name: str) -> None:
        raise UserError(f"a task's reset() or update() deleted memory['{name}']; replace it instead.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole.memory)

    def __len__(self) -> int:
        return len(self._whole.memory)


class Slices:
    """The slices of a simulation, one a candidate."""

    def __init__(self, whole: Simulation, count: int) -> None:
        self.whole = whole
        worlds = whole.num_envs // count
        self.each = [SliceSimulation(whole, k * worlds, worlds) for k in range(count)]

    def apply(self) -> None:
        """Tell the simulation what the slices were told, all at once."""
        states = [state for each in self.each for state in each.states]
        if states:
            ids, qpos, qvel = (torch.cat(column) for column in zip(*states, strict=True))
            self.whole.set_state(ids, qpos, qvel)
        memories = [each.memory for each in self.each]
        for name in {name: None for memory in memories for name in memory.replaced}:  # type: ignore[attr-defined]
            self.whole.memory[name] = torch.cat([memory[name] for memory in memories])
        for each, memory in zip(self.each, memories, strict=True):
            each.states.clear()
            memory.replaced.clear()  # type: ignore[attr-defined]


class PopulationWorlds:
    """The worlds of K candidates: reset, step, auto-reset, time limit, as `tasks.env.TaskEnv` does them.

    Args:
        task: What to simulate.
        num_envs: N.
        seeds: K, of each candidate's resets.
        num_threads: Physics threads, 0 for all cores.
        backend: See `tasks.env.make_env`.
        device: Where tensors live.
        randomize: Whether worlds differ as the task's table says; each slice's as its seed alone would have them.

    Raises:
        UserError: the task cannot be built, or comes with another simulator's environment.
    """

    def __init__(
        self,
        task: Task,
        num_envs: int,
        seeds: Sequence[int],
        *,
        num_threads: int = 0,
        backend: str = "native",
        device: str | None = None,
        randomize: bool = False,
    ) -> None:
        self.task, self.count, self.worlds = task, len(seeds), num_envs
        # The environment sets the simulation up and checks the task.
        seed = int.from_bytes(hashlib.sha256(repr(list(seeds)).encode()).digest()[:7], "big")
        env = make_env(task, self.count * num_envs, seed=seed, num_threads=num_threads, backend=backend, device=device)
        if not isinstance(env, TaskEnv):
            env.close()
            raise UserError(f"task '{task.name}' brings an environment of its own; train its candidates one by one.")
        self._env = env
        self.sim = env.sim
        self.device = env.device
        self.num_actions = env.num_actions
        self.num_observations = env.num_observations
        self.max_episode_steps = env.max_episode_steps
        self.episode_step = env.episode_step.view(self.count, num_envs)
        """(K, N) steps played of each world's episode."""
        self._observation = env.observe()
        self._rngs = [torch.Generator(device=self.device).manual_seed(seed) for seed in seeds]
        self._slices = Slices(self.sim, self.count)
        self._updates = type(task).update is not Task.update
        self._pushes = self._randomize(seeds) if randomize else []
        if not self.sim.asynchronous:  # the environment's first episodes are of its own seed, and are not played
            self._reset([torch.arange(num_envs, device=self.device)] * self.count)
            self._observation = task.observe(task.signals(self.sim))

    def observe(self) -> Tensor:
        """The present observation (K, N, O)."""
        return self._observation.unflatten(0, (self.count, self.worlds))

    def step(self, actions: Tensor) -> EnvStep:
        """Play one control step with actions (K, N, A), clipped to [-1, 1]; everything in the result is (K N, ...)."""
        sim, task = self.sim, self.task
        if self._pushes:
            sim.add_velocity(torch.cat([pushes.next() for pushes in self._pushes]))
        if sim.asynchronous:
            step = self._env.step(actions.flatten(0, 1))
            self._observation = step.observation
            return step
        sim.memory["previous_actions"] = sim.memory["actions"]
        sim.memory["actions"] = actions.detach().flatten(0, 1).to(torch.float32).clamp(-1.0, 1.0)
        task.act(sim, sim.memory["actions"])
        sim.step()
        self.episode_step += 1

        signals = task.signals(sim)
        reasons = dict(task.terminate(signals))
        reasons["diverged"] = sim.diverged
        terminated = torch.stack(tuple(reasons.values())).any(dim=0)
        truncated = (self.episode_step.flatten() >= self.max_episode_steps) & ~terminated
        done = terminated | truncated
        changed = self._update(signals)
        self._reset(self._by_slice(done))
        self._observation = self._observe(signals, done if changed is None else changed | done)
        return EnvStep(self._observation, signals, terminated, truncated, reasons, done)

    def start_anew(self, k: int) -> None:
        """Begin a new episode in all worlds of candidate k. Nothing of other slices changes: the observations of k's
        worlds alone are computed again, since at another place in a tensor a number can differ in its last bit."""
        if self.sim.asynchronous:
            mine = torch.zeros(self.count, self.worlds, dtype=torch.bool, device=self.device)
            mine[k] = True
            self._env.reset_where(mine.flatten(), self._rngs[k])
            fresh = self.task.observe(self.task.signals(self.sim))
            self._observation = torch.where(mine.flatten()[:, None], fresh, self._observation)
            return
        ids = [torch.zeros(0, dtype=torch.int64, device=self.device)] * self.count
        ids[k] = torch.arange(self.worlds, device=self.device)
        self._reset(ids)
        self._observation = self._with_fresh(self._observation, ids[k] + k * self.worlds)

    def _randomize(self, seeds: Sequence[int]) -> list[Pushes]:
        """Give each world its own numbers; what pushes each slice."""
        table, sim = self.task.randomize, self.sim
        if table is None:
            self.close()
            raise UserError(f"task '{self.task.name}' has no randomize table (tasks/randomize.py); train without it.")
        drawn = [draw(sim.model, table, self.worlds, seed + RANDOMIZE_SEED) for seed in seeds]
        sim.set_parameters({name: np.concatenate([fields[name] for fields in drawn]) for name in drawn[0]})
        if table.push is None:
            return []
        told = (table.push, sim.model, self.worlds, self.task.control_dt_s, sim.device)
        return [Pushes(*told, seed + RANDOMIZE_SEED) for seed in seeds]

    def collect_overflows(self) -> dict[str, int]:
        """See `tasks.env.TaskEnv`. Worlds share the room for contacts, so nobody knows whose these are."""
        return self._env.collect_overflows()

    def close(self) -> None:
        """Release the simulation."""
        self._env.close()

    def _by_slice(self, chosen: Tensor) -> list[Tensor]:
        """Worlds chosen (K N,) bool of each slice, counted from its start."""
        ids = chosen.view(self.count, self.worlds).nonzero()
        counts = chosen.view(self.count, self.worlds).sum(dim=1).tolist()
        return list(ids[:, 1].split(counts))

    def _update(self, signals: Signals) -> Tensor | None:
        """`Task.update` for every slice; (K N,) bool where signals are stale, or None."""
        if not self._updates:
            return None
        changed, any_changed = [], False
        for k, (part, rng) in enumerate(zip(self._slices.each, self._rngs, strict=True)):
            rows = slice(k * self.worlds, (k + 1) * self.worlds)
            told = self.task.update(part, {name: value[rows] for name, value in signals.items()}, rng)  # type: ignore
            any_changed |= told is not None
            changed.append(torch.zeros(self.worlds, dtype=torch.bool, device=self.device) if told is None else told)
        self._slices.apply()
        return torch.cat(changed) if any_changed else None

    def _reset(self, ids: Sequence[Tensor]) -> None:
        """New episodes in worlds ids, (n,) of each slice."""
        for k, (part, rng, own) in enumerate(zip(self._slices.each, self._rngs, ids, strict=True)):
            if own.numel():
                for name in ("actions", "previous_actions"):
                    part.memory[name] = part.memory[name].index_fill(0, own, 0.0)
                self.task.reset(part, own, rng)  # type: ignore[arg-type]
                self.episode_step[k].index_fill_(0, own, 0)
        self._slices.apply()

    def _observe(self, signals: Signals, stale: Tensor) -> Tensor:
        """The observation (K N, O), for which the signals of worlds `stale` (K N,) are computed again, each slice's by
        themselves: their places in a tensor, and with them last bits, depend on no other slice."""
        observation = self.task.observe(signals)
        for k, own in enumerate(self._by_slice(stale)):
            if own.numel():
                observation = self._with_fresh(observation, own + k * self.worlds)
        return observation

    def _with_fresh(self, observation: Tensor, ids: Tensor) -> Tensor:
        """The observation (K N, O) with that of worlds ids (n,) computed again."""
        fresh = self.task.observe(self.task.signals(WorldSubset(self.sim, ids)))
        return observation.index_copy(0, ids, fresh)  # out of place: it may be a view of a signal
