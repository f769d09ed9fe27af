"""A four-legged ant that runs: eight torque-driven hinges, floor contact at feet, knees and torso.

Body and joint figures and their sources stand in ant.xml. The ant starts near its standing pose, facing world
+x, with joints and velocities perturbed as in Gymnasium's Ant-v5 (+-0.1, here rad and rad/s).

Does not model: legs touching each other or the torso, motor dynamics, sensor noise.
Axes: N worlds, 8 joints in the order front left, front right, back left, back right; hip before knee.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from tasks.math import matrix_rotate_inverse, quat_to_matrix, uniform
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

STAND_HEIGHT_M = 0.58
"""Torso height with all knees at 60 degrees and the feet just above the floor:
0.4 sqrt(2) sin(60 deg) + 0.08 m."""
STAND_KNEE_RAD = math.radians(60.0)
RESET_NOISE = 0.1
"""rad and rad/s, uniform; Gymnasium's Ant-v5."""
MIN_HEIGHT_M = 0.31
"""Torso height below which the ant has fallen; IsaacGymEnvs' Ant. Its ball touches at 0.25 m."""
MAX_HEIGHT_M = 1.5
"""Higher than any gait; only an exploding contact gets there."""
JOINT_RANGE_RAD = torch.tensor([[math.radians(-40), math.radians(40)], [math.radians(30), math.radians(100)]]).repeat(
    4, 1
)
"""Lower and upper limit of each joint (8, 2), as in ant.xml."""
JOINT_CENTRE_RAD = JOINT_RANGE_RAD.mean(dim=1)
JOINT_HALF_RAD = 0.5 * (JOINT_RANGE_RAD[:, 1] - JOINT_RANGE_RAD[:, 0])


class AntRun(Task):
    """The ant runs along world +x."""

    name = "ant-run"
    instruction = "make the ant run forward as fast as possible"
    action_doc = (
        "8 joint torques as a fraction of the motor limit, each in [-1, 1] (values outside are "
        "clipped): 1 is 15 N m. Order: front left, front right, back left, back right; hip before "
        "knee. A positive hip torque turns the leg counter-clockwise seen from above, a positive knee"
        " torque bends the foot down."
    )
    xml = Path(__file__).with_name("ant.xml")
    control_dt_s = 0.02
    episode_length_s = 10.0
    camera = "track"
    signal_table = SignalTable(
        [
            Signal(
                "torso_position_w",
                3,
                "m",
                "world",
                "position",
                "centre of the torso; z is its height (0.58 standing)",
            ),
            Signal("torso_orientation_w", 4, "1", "world", "orientation", "unit quaternion of the torso, w first"),
            Signal("up_axis_w", 3, "1", "world", "direction", "the torso's own up axis; (0, 0, 1) when level"),
            Signal(
                "forward_axis_w",
                3,
                "1",
                "world",
                "direction",
                "where the torso faces; (1, 0, 0) when facing forward",
            ),
            Signal(
                "torso_linear_velocity_w",
                3,
                "m/s",
                "world",
                "linear_velocity",
                "of the torso; x is forward, y left, z up",
            ),
            Signal(
                "torso_linear_velocity_b",
                3,
                "m/s",
                "body",
                "linear_velocity",
                "of the torso, along its own axes",
            ),
            Signal(
                "torso_angular_velocity_b",
                3,
                "rad/s",
                "body",
                "angular_velocity",
                "of the torso: roll, pitch, yaw rate",
            ),
            Signal(
                "joint_pos",
                8,
                "rad",
                "joint",
                "joint_pos",
                "hips -0.70..0.70, knees 0.52 (straight)..1.75 (bent down)",
            ),
            Signal(
                "joint_pos_fraction",
                8,
                "1",
                "joint",
                "joint_pos",
                "joint_pos in its range: -1 lower, 1 upper limit",
            ),
            Signal("joint_vel", 8, "rad/s", "joint", "joint_vel", "joint velocities"),
            Signal("actions", 8, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 8, "1", "joint", "action", "actions of the step before"),
        ]
    )
    fitness_unit = "m/s"
    fitness_doc = "mean speed of the torso along world +x over the whole 10 s; every step after a fall counts 0"
    fitness_reduce = "mean"
    fitness_failed = 0.0

    def setup(self, sim: Simulation) -> None:
        """Middle and half width of the joints' ranges."""
        sim.constants["joint_centre"] = JOINT_CENTRE_RAD.to(sim.device)
        sim.constants["joint_half"] = JOINT_HALF_RAD.to(sim.device)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Near the standing pose, facing world +x."""
        n = len(env_ids)
        qpos = torch.zeros(n, 15)
        qpos[:, 2] = STAND_HEIGHT_M
        qpos[:, 3] = 1.0
        qpos[:, 8::2] = STAND_KNEE_RAD
        qpos[:, 7:] += uniform((n, 8), -RESET_NOISE, RESET_NOISE, rng)
        sim.set_state(env_ids, qpos, uniform((n, 14), -RESET_NOISE, RESET_NOISE, rng))

    def signals(self, sim: SimulationState) -> Signals:
        """Everything from qpos and qvel; a free joint's qvel is linear in the world and angular in the
        body frame."""
        qpos, qvel = sim.qpos, sim.qvel
        orientation, velocity_w, joint_pos = qpos[:, 3:7], qvel[:, :3], qpos[:, 7:]
        body_to_world = quat_to_matrix(orientation)  # (N, 3, 3); its columns are the torso's axes in the world
        return {
            "torso_position_w": qpos[:, :3],
            "torso_orientation_w": orientation,
            "up_axis_w": body_to_world[:, :, 2],
            "forward_axis_w": body_to_world[:, :, 0],
            "torso_linear_velocity_w": velocity_w,
            "torso_linear_velocity_b": matrix_rotate_inverse(body_to_world, velocity_w),
            "torso_angular_velocity_b": qvel[:, 3:6],
            "joint_pos": joint_pos,
            "joint_pos_fraction": (joint_pos - sim.constants["joint_centre"]) / sim.constants["joint_half"],
            "joint_vel": qvel[:, 6:],
            "actions": sim.memory["actions"],
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 37): height, velocities, up and forward in the body frame, joints,
        actions."""
        body_to_world = quat_to_matrix(signals["torso_orientation_w"])
        parts = [
            signals["torso_position_w"][:, 2:],
            signals["torso_linear_velocity_b"],
            signals["torso_angular_velocity_b"],
            body_to_world[:, 2],  # the world's up and forward in the body frame
            body_to_world[:, 0],
            signals["joint_pos_fraction"],
            signals["joint_vel"],
            signals["actions"],
        ]
        return torch.cat(parts, dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Fallen, overturned (up axis below the horizon), or thrown into the air."""
        height = signals["torso_position_w"][:, 2]
        return {
            "torso_too_low": height < MIN_HEIGHT_M,
            "overturned": signals["up_axis_w"][:, 2] < 0.0,
            "torso_too_high": height > MAX_HEIGHT_M,
        }

    def fitness(self, signals: Signals) -> Tensor:
        """Forward speed of the torso, m/s (N,)."""
        return signals["torso_linear_velocity_w"][:, 0]
