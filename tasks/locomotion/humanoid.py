"""A humanoid that runs: 21 torque-driven hinges, floor contact at heels, toes, knees and trunk.

Body and joint figures and their sources stand in humanoid.xml. It starts upright with slightly bent knees,
facing world +x, with joints and velocities perturbed by +-0.05 (rad, rad/s, m/s).

Does not model: limbs touching each other, hands, motor dynamics, sensor noise.
Axes: N worlds, 21 joints: waist z, y, x; left then right leg: hip x, z, y, knee, ankle y, x; left then right
arm: shoulder y, x, elbow.
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

STAND_HEIGHT_M = 1.28
"""Torso height in the starting pose with the soles just above the floor."""
RESET_NOISE = 0.05
MIN_HEIGHT_M = 0.8
"""Torso height below which the humanoid has fallen; IsaacGymEnvs' Humanoid."""
MAX_HEIGHT_M = 2.0
"""Higher than any gait; only an exploding contact gets there."""
LEG_RANGE_DEG = [[-15, 45], [-60, 35], [-120, 45], [-2, 160], [-50, 50], [-50, 50]]
ARM_RANGE_DEG = [[-90, 60], [-10, 85], [-90, 50]]
JOINT_RANGE_RAD = torch.tensor(
    [[-45, 45], [-75, 30], [-35, 35], *LEG_RANGE_DEG, *LEG_RANGE_DEG, *ARM_RANGE_DEG, *ARM_RANGE_DEG]
) * (math.pi / 180.0)
"""Lower and upper limit of each joint (21, 2), as in humanoid.xml."""
JOINT_CENTRE_RAD = JOINT_RANGE_RAD.mean(dim=1)
JOINT_HALF_RAD = 0.5 * (JOINT_RANGE_RAD[:, 1] - JOINT_RANGE_RAD[:, 0])
LEG_POSE_RAD = [0.0, 0.0, -0.2, 0.4, -0.2, 0.0]
"""Knees slightly bent, soles level."""
START_POSE_RAD = torch.tensor([0.0, 0.0, 0.0, *LEG_POSE_RAD, *LEG_POSE_RAD, *[0.0] * 6])


class HumanoidRun(Task):
    """The humanoid runs along world +x."""

    name = "humanoid-run"
    instruction = "make the humanoid run forward as fast as possible"
    action_doc = (
        "21 joint torques as a fraction of each motor's limit, each in [-1, 1] (values outside are "
        "clipped). Order and limits in N m: waist z, y, x (67.5 each); left leg: hip x 45, hip z 45, "
        "hip y 135, knee 90, ankle y 22.5, ankle x 22.5; right leg the same; left arm: shoulder y "
        "67.5, shoulder x 67.5, elbow 45; right arm the same. Negative hip y and shoulder y torques "
        "swing the limb forward, positive knee torques bend the knee."
    )
    xml = Path(__file__).with_name("humanoid.xml")
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
                "centre of the chest; z is its height (1.28 standing)",
            ),
            Signal("torso_orientation_w", 4, "1", "world", "orientation", "unit quaternion of the torso, w first"),
            Signal("up_axis_w", 3, "1", "world", "direction", "the torso's own up axis; (0, 0, 1) when upright"),
            Signal(
                "forward_axis_w",
                3,
                "1",
                "world",
                "direction",
                "where the chest faces; (1, 0, 0) when facing forward",
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
            Signal("joint_pos", 21, "rad", "joint", "joint_pos", "joint angles; all 0 is standing straight"),
            Signal(
                "joint_pos_fraction",
                21,
                "1",
                "joint",
                "joint_pos",
                "joint_pos in its range: -1 lower, 1 upper limit",
            ),
            Signal("joint_vel", 21, "rad/s", "joint", "joint_vel", "joint velocities"),
            Signal("actions", 21, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 21, "1", "joint", "action", "actions of the step before"),
        ]
    )
    fitness_unit = "m/s"
    fitness_doc = "mean speed of the torso along world +x over the whole 10 s; every step after a fall counts 0"
    fitness_reduce = "mean"
    fitness_failed = 0.0

    def setup(self, sim: Simulation) -> None:
        """Middle and half width of the joints' ranges, and the pose that an episode starts near."""
        sim.constants["joint_centre"] = JOINT_CENTRE_RAD.to(sim.device)
        sim.constants["joint_half"] = JOINT_HALF_RAD.to(sim.device)
        sim.constants["start_pose"] = START_POSE_RAD.to(sim.device)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Upright with slightly bent knees, facing world +x."""
        n = len(env_ids)
        qpos = torch.zeros(n, 28)
        qpos[:, 2] = STAND_HEIGHT_M
        qpos[:, 3] = 1.0
        qpos[:, 7:] = sim.constants["start_pose"] + uniform((n, 21), -RESET_NOISE, RESET_NOISE, rng)
        sim.set_state(env_ids, qpos, uniform((n, 27), -RESET_NOISE, RESET_NOISE, rng))

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
        """What the policy sees (N, 76): height, velocities, up and forward in the body frame, joints,
        actions."""
        body_to_world = quat_to_matrix(signals["torso_orientation_w"])
        parts = [
            signals["torso_position_w"][:, 2:],
            signals["torso_linear_velocity_b"],
            signals["torso_angular_velocity_b"],
            body_to_world[:, 2],  # the world's up and forward in the body frame
            body_to_world[:, 0],
            signals["joint_pos"],
            signals["joint_vel"],
            signals["actions"],
        ]
        return torch.cat(parts, dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Fallen, or thrown into the air."""
        height = signals["torso_position_w"][:, 2]
        return {"torso_too_low": height < MIN_HEIGHT_M, "torso_too_high": height > MAX_HEIGHT_M}

    def fitness(self, signals: Signals) -> Tensor:
        """Forward speed of the torso, m/s (N,)."""
        return signals["torso_linear_velocity_w"][:, 0]
