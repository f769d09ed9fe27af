"""What tasks share in which a walking body is told where to go: run, walk, turn, go backwards, stand.

Commands are velocities along the body's heading: the horizontal direction that its torso faces. A torso that leans or
rocks has the same heading, so that "forward" stays along the ground. The phrases stand in `walking_words.py`, which no
designer of rewards has to read.

Axes: N worlds. A free joint comes first in qpos and qvel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.commanded import CommandedTask
from tasks.math import constant, quat_from_axis_angle, quat_to_matrix, uniform
from tasks.signals import Signal, Signals
from tasks.sim import Simulation, SimulationState

WORLD_UP = (0.0, 0.0, 1.0)
WALKING_SIGNALS = (
    Signal("command_velocity", 2, "m/s", "heading", "command", "horizontal velocity asked for: forward, to the left"),
    Signal("command_yaw_rate", 1, "rad/s", "heading", "command", "rate of turning asked for; positive is to the left"),
    Signal("heading_velocity", 2, "m/s", "heading", "linear_velocity", "of the torso: forward, to the left"),
    Signal("yaw_rate", 1, "rad/s", "heading", "angular_velocity", "of the torso, about the vertical"),
)
"""What such a task publishes beside the signals of its body."""


class WalkingTask(CommandedTask):
    """Base class: stands before the task of a body with the signals `torso_orientation_w`, `forward_axis_w`,
    `torso_linear_velocity_w` and `torso_angular_velocity_b`."""

    fitness_scale = (0.5, 0.5, 0.5)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """As the body's own task, but facing anywhere, with a new command."""
        super().reset(sim, env_ids, rng)
        qpos, qvel = sim.qpos[env_ids], sim.qvel[env_ids]
        heading = uniform((len(env_ids),), -torch.pi, torch.pi, rng).to(sim.device)
        qpos[:, 3:7] = quat_from_axis_angle(constant(WORLD_UP, sim.device), heading)
        sim.set_state(env_ids, qpos, qvel)

    def signals(self, sim: SimulationState) -> Signals:
        """The body's own, the command, and its velocities along the heading."""
        signals = super().signals(sim)
        command, velocity = sim.memory["command"], signals["torso_linear_velocity_w"]
        # A torso that points straight up or down has no heading; it has fallen.
        forward = torch.nn.functional.normalize(signals["forward_axis_w"][:, :2], dim=-1)
        left = torch.stack([-forward[:, 1], forward[:, 0]], dim=-1)
        along = [(velocity[:, :2] * axis).sum(dim=-1) for axis in (forward, left)]
        up_b = quat_to_matrix(signals["torso_orientation_w"])[:, 2]  # the world's up in the body frame
        return signals | {
            "command_velocity": command[:, :2],
            "command_yaw_rate": command[:, 2:],
            "heading_velocity": torch.stack(along, dim=-1),
            "yaw_rate": (up_b * signals["torso_angular_velocity_b"]).sum(dim=-1, keepdim=True),
        }

    def command_numbers(self, signals: Signals) -> Tensor:
        """The command (N, 3): velocity forward and to the left, yaw rate."""
        return torch.cat([signals["command_velocity"], signals["command_yaw_rate"]], dim=-1)

    def fitness_achieved(self, signals: Signals) -> Tensor:
        """Velocity forward and to the left, m/s, and yaw rate, rad/s (N, 3)."""
        return torch.cat([signals["heading_velocity"], signals["yaw_rate"]], dim=-1)
