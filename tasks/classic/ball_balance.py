"""A ball rolling on a round table that two position servos tilt.

Sizes, masses, servos and their sources stand in ball_balance.xml; in place of the three legs of IsaacGymEnvs'
BallBalance the table turns about two axes through its middle. The ball starts rolling without slip, so a level table
loses it.

Does not model: rolling resistance, servo delay, sensor noise.
Axes: N worlds, 2 actions. Frame "table": origin at the pivot, z along the table's normal, x and y along the world's
when the table is level.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from tasks.math import quat_rotate, uniform
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

TABLE_RADIUS_M = 0.5
BALL_RADIUS_M = 0.1
PIVOT_HEIGHT_M = 0.5
BALL_HEIGHT_M = 0.11
"""Centre of a ball at rest above the pivot: half the table's thickness and the ball's radius."""
MAX_START_DISTANCE_M = 0.25
MIN_START_SPEED_M_S = 0.2
MAX_START_SPEED_M_S = 0.6
"""Chosen here: with level commands every ball is lost within about 4 s, and at full tilt (2.1 m/s2) the fastest one
stops within 0.09 m once the servo has followed."""

FITNESS_SECONDS = 10.0
"""A step without failure counts as the whole time limit; their mean over the limit is the time until failure."""


class BallBalance(Task):
    """The table must keep the rolling ball."""

    name = "ball-balance"
    instruction = "keep the ball on the tilting table without letting it fall"
    action_doc = (
        "2 tilt commands as a fraction of the range, each in [-1, 1] (values outside are clipped): 1 is 0.3 rad. "
        "Position servos follow within about 0.2 s. A positive first action lowers the table's +x side, so the ball "
        "accelerates towards +x; a positive second one lowers its +y side."
    )
    xml = Path(__file__).with_name("ball_balance.xml")
    control_dt_s = 0.02
    episode_length_s = 10.0
    camera = "front"
    signal_table = SignalTable(
        [
            Signal("ball_position_w", 3, "m", "world", "position", "centre; z is 0.61 in the middle of the table"),
            Signal("ball_velocity_w", 3, "m/s", "world", "linear_velocity", "velocity of the ball's centre"),
            Signal("ball_angular_velocity_w", 3, "rad/s", "world", "angular_velocity", "spin of the ball"),
            Signal("ball_position_t", 3, "m", "table", "position", "ball from the table's middle; z is 0.11 on it"),
            Signal("ball_velocity_t", 3, "m/s", "table", "linear_velocity", "ball relative to the turning table"),
            Signal("ball_distance", 1, "m", "table", "distance", "ball from the table's axis; the rim is at 0.5"),
            Signal("table_normal_w", 3, "1", "world", "direction", "the table's up direction; (0, 0, 1) when level"),
            Signal("tilt_angles", 2, "rad", "joint", "joint_pos", "positive lowers the +x, +y side; within +-0.35"),
            Signal("tilt_velocities", 2, "rad/s", "joint", "joint_vel", "rates of tilt_angles"),
            Signal("actions", 2, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 2, "1", "joint", "action", "actions of the step before"),
        ]
    )
    fitness_unit = "s"
    fitness_doc = "mean time until the ball's centre passes the table's rim, of 10 s"
    fitness_reduce = "mean"
    fitness_failed = 0.0

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Level table at rest; the ball up to 0.25 m from its middle, rolling at 0.2 to 0.6 m/s in any direction."""
        n = len(env_ids)
        bearing, heading = (uniform((n,), -math.pi, math.pi, rng) for _ in range(2))
        # The square root makes the places uniform over the disc.
        distance = MAX_START_DISTANCE_M * torch.sqrt(uniform((n,), 0.0, 1.0, rng))
        speed = uniform((n,), MIN_START_SPEED_M_S, MAX_START_SPEED_M_S, rng)
        velocity = torch.stack([speed * torch.cos(heading), speed * torch.sin(heading)], dim=-1)
        qpos, qvel = torch.zeros(n, 9), torch.zeros(n, 8)
        qpos[:, 2], qpos[:, 3] = distance * torch.cos(bearing), distance * torch.sin(bearing)
        qpos[:, 4] = PIVOT_HEIGHT_M + BALL_HEIGHT_M
        qpos[:, 5] = 1.0
        qvel[:, 2:4] = velocity
        # Rolling: the point of contact rests, v = spin x (radius up).
        qvel[:, 5], qvel[:, 6] = -velocity[:, 1] / BALL_RADIUS_M, velocity[:, 0] / BALL_RADIUS_M
        sim.set_state(env_ids, qpos, qvel)

    def signals(self, sim: SimulationState) -> Signals:
        """Everything from qpos and qvel; a free joint's qvel is linear in the world and angular in the body frame."""
        qpos, qvel = sim.qpos, sim.qvel
        tilt, tilt_velocity = qpos[:, :2], qvel[:, :2]
        position, velocity = qpos[:, 2:5], qvel[:, 2:5]
        offset = torch.cat([position[:, :2], position[:, 2:] - PIVOT_HEIGHT_M], dim=-1)
        position_t = _into_table(tilt, offset)
        carried = torch.linalg.cross(_table_angular_velocity(tilt, tilt_velocity), offset)
        sin, cos = torch.sin(tilt), torch.cos(tilt)
        normal = torch.stack([sin[:, 0] * cos[:, 1], sin[:, 1], cos[:, 0] * cos[:, 1]], dim=-1)
        return {
            "ball_position_w": position,
            "ball_velocity_w": velocity,
            "ball_angular_velocity_w": quat_rotate(qpos[:, 5:9], qvel[:, 5:8]),
            "ball_position_t": position_t,
            "ball_velocity_t": _into_table(tilt, velocity - carried),
            "ball_distance": torch.linalg.norm(position_t[:, :2], dim=-1, keepdim=True),
            "table_normal_w": normal,
            "tilt_angles": tilt,
            "tilt_velocities": tilt_velocity,
            "actions": sim.memory["actions"],
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """The ball's place and velocity on the table, the tilt and its rate (N, 8)."""
        return torch.cat(
            [
                signals["ball_position_t"][:, :2],
                signals["ball_velocity_t"][:, :2],
                signals["tilt_angles"],
                signals["tilt_velocities"],
            ],
            dim=-1,
        )

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """The ball's centre has passed the rim: nothing carries it any more."""
        return {"ball_fell": signals["ball_distance"][:, 0] > TABLE_RADIUS_M}

    def fitness(self, signals: Signals) -> Tensor:
        """10 s for each step without failure."""
        return torch.full_like(signals["ball_distance"][:, 0], FITNESS_SECONDS)


def _into_table(tilt: Tensor, v: Tensor) -> Tensor:
    """World vector into the table's axes; the table is turned by R_y(tilt_x) R_x(-tilt_y). (N, 2), (N, 3) -> (N, 3)."""
    sin, cos = torch.sin(tilt), torch.cos(tilt)
    x = cos[:, 0] * v[:, 0] - sin[:, 0] * v[:, 2]
    along = sin[:, 0] * v[:, 0] + cos[:, 0] * v[:, 2]
    y = cos[:, 1] * v[:, 1] - sin[:, 1] * along
    z = sin[:, 1] * v[:, 1] + cos[:, 1] * along
    return torch.stack([x, y, z], dim=-1)


def _table_angular_velocity(tilt: Tensor, rate: Tensor) -> Tensor:
    """In world axes: tilt_x turns about y, tilt_y about the tilted -x axis. (N, 2), (N, 2) -> (N, 3)."""
    return torch.stack([-rate[:, 1] * torch.cos(tilt[:, 0]), rate[:, 0], rate[:, 1] * torch.sin(tilt[:, 0])], dim=-1)
