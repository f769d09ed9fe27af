"""What the slow loop sees of a world: a copy of its state, taken between two steps.

The fast loop makes one each step, which costs two small copies; what it means is worked out by whoever looks.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
from torch import Tensor

from tasks.env import TaskEnv
from tasks.errors import UserError
from tasks.sim import SimulationState
from tasks.task import Task


class StateCopy:
    """One moment of a simulation; a `tasks.sim.SimulationState` without sensors."""

    def __init__(self, sim: SimulationState, time_s: float) -> None:
        self.time_s = time_s
        """Simulated time of the episode."""
        self.num_envs = sim.num_envs
        self.device = sim.device
        self.model: mujoco.MjModel = sim.model
        self.physics_dt_s = sim.physics_dt_s
        self.substeps = sim.substeps
        self.constants: dict[str, Tensor] = sim.constants
        # A task replaces tensors of its memory and never writes into them: the dictionary alone is copied.
        self.memory: Mapping[str, Tensor] = dict(sim.memory)
        self.qpos: Tensor = sim.qpos.clone()
        self.qvel: Tensor = sim.qvel.clone()
        self.diverged: Tensor = sim.diverged

    def sensor(self, name: str) -> Tensor:
        """Raises UserError: sensors are the simulation's, which has moved on."""
        raise UserError(f"a copy of a state has no sensor '{name}'; what a planner is told comes of qpos and qvel.")

    def shown(self, task: Task) -> np.ndarray:
        """Positions of the task's visual model (nq,)."""
        return task.visual_qpos(self.qpos, self.memory)[0].cpu().numpy().astype(np.float64)


def copy_state(env: TaskEnv) -> StateCopy:
    """The present state of `env`."""
    return StateCopy(env.sim, float(env.episode_step[0]) * env.task.control_dt_s)
