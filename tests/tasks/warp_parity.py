"""Both backends from the same states under the same controls, task by task: how far apart they are afterwards.

Two comparisons. `one_step`: states along a random rollout of the native backend, contacts and falls included, each
advanced by one control step on both; this says whether the two compute the same physics, and chaos has no time to
grow. `at_rest`: from the task's start without any action for a number of steps; free flight and resting contact
must not drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tasks.env import TaskEnv, make_env
from tasks.sim import Simulation

WORLDS = 8
ROLLOUT_STEPS = 40
EVERY = 8
"""Control steps between the states that are compared."""


@dataclass(frozen=True)
class Apart:
    """Largest difference of any position and any velocity of a world, in the joints' own units (m, rad, m/s, rad/s)."""

    qpos: float
    qvel: float

    def __le__(self, other: Apart) -> bool:
        return self.qpos <= other.qpos and self.qvel <= other.qvel


@dataclass(frozen=True)
class Parity:
    """What was found for a task: of half of the worlds (and states) no more than `typical`, of all no more than
    `worst`."""

    one_step: Apart
    one_step_worst: Apart
    at_rest: Apart
    at_rest_worst: Apart


def compare(task, rest_steps: int) -> tuple[Parity, TaskEnv]:
    """Compare the backends on a task; the Warp environment comes back open, for other questions."""
    native = make_env(task, WORLDS, seed=1, num_threads=1)
    warp = make_env(task, WORLDS, seed=1, backend="warp", device="cpu")
    found = Parity(*summary(one_step(native, warp)), *summary(at_rest(native, warp, rest_steps)))
    native.close()
    return found, warp


def one_step(native: TaskEnv, warp: TaskEnv) -> torch.Tensor:
    """(states x worlds, 2)."""
    rng = torch.Generator().manual_seed(0)
    states = []
    for step in range(ROLLOUT_STEPS):
        if step % 4 == 0:
            actions = torch.rand(WORLDS, native.num_actions, generator=rng) * 2 - 1
        native.step(actions)
        if step % EVERY == EVERY - 1:
            states.append((native.sim.qpos, native.sim.qvel, actions))
    found = []
    memory = dict(native.sim.memory)
    for qpos, qvel, actions in states:
        for env in (native, warp):
            put(env.sim, qpos, qvel)
            env.sim.memory.update(memory)
            env.task.act(env.sim, actions)
            env.sim.step()
        found.append(apart(native.sim, warp.sim))
    return torch.cat(found)


def at_rest(native: TaskEnv, warp: TaskEnv, steps: int) -> torch.Tensor:
    """(worlds, 2), the largest of all steps."""
    native.reset()
    put(warp.sim, native.sim.qpos, native.sim.qvel)
    put(native.sim, native.sim.qpos, native.sim.qvel)
    memory = dict(native.sim.memory)
    found = torch.zeros(WORLDS, 2)
    warp.sim.memory.update(memory)
    for _ in range(steps):
        for env in (native, warp):
            env.task.act(env.sim, torch.zeros(WORLDS, env.num_actions))
            env.sim.step()
        found = torch.maximum(found, apart(native.sim, warp.sim))
    return found


def put(sim: Simulation, qpos: torch.Tensor, qvel: torch.Tensor) -> None:
    sim.set_state(torch.arange(WORLDS), qpos, qvel)


def apart(a: Simulation, b: Simulation) -> torch.Tensor:
    """(worlds, 2): largest difference of a position, and of a velocity."""
    assert a.qpos.isfinite().all() and b.qpos.isfinite().all()
    pairs = ((a.qpos, b.qpos), (a.qvel, b.qvel))
    return torch.stack([(left - right).abs().amax(dim=-1) for left, right in pairs], dim=-1)


def summary(found: torch.Tensor) -> tuple[Apart, Apart]:
    """What is typical, and the worst, of (M, 2)."""
    return tuple(Apart(*(float(x) for x in row)) for row in (found.median(dim=0).values, found.amax(dim=0)))
