"""What a physics backend owes: N worlds of one model behind plain tensors.

Positions, velocities and sensors describe the state AFTER the last `step` or `forward`; nothing is one substep
stale. Controls are those of the last `set_ctrl`.

Axes: N worlds, nq/nv/nu as in MuJoCo. Tensors are float32 on `device`; those handed out never change later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import mujoco
import numpy as np
from torch import Tensor


class SimulationState(Protocol):
    """N worlds to read from: what a task's `signals` gets."""

    num_envs: int
    device: str
    asynchronous: bool
    """Whether a step is work queued for a device. Whoever looks at a tensor's values then waits for all of it, so
    worlds are chosen by masks, never by a list of their numbers."""
    model: mujoco.MjModel
    physics_dt_s: float
    """Duration of one substep."""
    substeps: int
    """Substeps of one `step`; the control period is `substeps * physics_dt_s`."""
    constants: dict[str, Tensor]
    """The task's tensors that are the same for all worlds: limits, gains, default poses. Any shape."""

    @property
    def memory(self) -> Mapping[str, Tensor]:
        """The task's own per-world tensors (N, ...)."""
        ...

    @property
    def qpos(self) -> Tensor:
        """Generalised positions (N, nq). Do not write to it."""
        ...

    @property
    def qvel(self) -> Tensor:
        """Generalised velocities (N, nv). Do not write to it."""
        ...

    @property
    def diverged(self) -> Tensor:
        """Worlds whose last step blew up and which the engine reset without a word, (N,) bool."""
        ...

    def sensor(self, name: str) -> Tensor:
        """A named MJCF sensor, (N, dim). The first call makes the backend compute its stage from then on."""
        ...


class Simulation(SimulationState, Protocol):
    """N independent worlds of one MuJoCo model."""

    memory: dict[str, Tensor]
    """The task's own per-world tensors (N, ...): previous action, command, goal. Replace a tensor to change it, never
    write into it: signals that were handed out earlier may hold it."""

    def set_state(self, env_ids: Tensor, qpos: Tensor, qvel: Tensor, where: Tensor | None = None) -> None:
        """Put worlds env_ids (n,) into a new state, qpos (n, nq), qvel (n, nv), at time 0 with nothing remembered.
        `where` (n,) bool: only those of them."""
        ...

    def set_ctrl(self, ctrl: Tensor) -> None:
        """Controls (N, nu) in the actuators' own units, for the next `step`."""
        ...

    def set_parameters(self, fields: Mapping[str, np.ndarray]) -> None:
        """Give worlds numbers of their own: field of MjModel -> values (N, ...). Constants that follow from them are
        computed again. Once, before the first step."""
        ...

    def add_velocity(self, change: Tensor) -> None:
        """Change the velocities by (N, nv), in the midst of an episode. Sensors follow with the next step."""
        ...

    def step(self) -> None:
        """Advance every world by `substeps` substeps."""
        ...

    def forward(self, env_ids: Tensor | None = None) -> None:
        """Recompute sensors of worlds env_ids (n,), or of all, for their present state."""
        ...

    def collect_overflows(self) -> dict[str, int]:
        """Worlds in which the backend left out contacts or constraints for want of memory since the last call, by what
        ran out; {} where none. It may wait for the device: for the ends of rollouts."""
        ...

    def close(self) -> None:
        """Release the worlds."""
        ...
