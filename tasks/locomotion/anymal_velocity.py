"""ANYmal C follows velocity commands on flat ground: forward, sideways and turning, by joint position targets at 50 Hz.

The robot and how its training model differs from the one shipped: `tasks.robots.anymal_c`. Commands, episode, control
rate and what the policy sees are those of legged_gym's and Isaac Lab's flat ANYmal C, with a narrower sideways range;
a tenth of the commands is to stand still, as in mjlab.

Does not model: legs touching each other, motor dynamics and delays, sensor noise, pushes, rough ground.
Axes: N worlds; 12 joints and 4 feet leg by leg: left front, right front, left hind, right hind.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from tasks.math import quat_from_axis_angle, quat_rotate_inverse, uniform
from tasks.robots import anymal_c
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

MAX_COMMAND = torch.tensor([1.0, 0.5, 1.0])
"""Largest forward speed (m/s), sideways speed (m/s) and yaw rate (rad/s) that is commanded, either way."""
COMMAND_TIME_S = 4.0
"""A command holds so long; legged_gym's flat ANYmal C."""
STANDING_SHARE = 0.1
"""Share of commands that are to stand still; mjlab's velocity tasks."""
ACTION_SCALE_RAD = 1.0
"""Joint target at action 1, from the default pose. legged_gym's 0.5 goes with actions that are not clipped."""
MAX_TILT_COS = 0.342
"""Cosine of the tilt at which the robot has fallen, 70 degrees; mjlab's velocity tasks."""
STAND_POSE_RAD = torch.tensor(anymal_c.STAND_POSE_RAD)
RESET_JOINT_NOISE_RAD = 0.1
RESET_VELOCITY = 0.1
"""m/s and rad/s, uniform; Isaac Lab's velocity tasks."""
WORLD_UP = torch.tensor([0.0, 0.0, 1.0])
WORLD_DOWN = torch.tensor([0.0, 0.0, -1.0])


class AnymalVelocity(Task):
    """ANYmal C tracks (vx, vy, yaw rate)."""

    name = "anymal-velocity"
    instruction = (
        "make the quadruped robot ANYmal C follow commanded velocities (forward, sideways and turning), which change "
        "every 4 seconds, with a steady natural gait and without falling; where the command is zero it stands"
    )
    action_doc = (
        "12 joint position targets of the servos, each in [-1, 1] (values outside are clipped): target = default pose "
        "+ action x 1 rad. Servos: 80 N m/rad, damping 2 N m s/rad, at most 80 N m. Order: left front, right front, "
        "left hind, right hind leg; in each hip abduction, hip flexion, knee flexion."
    )
    robot = anymal_c.ROBOT
    control_dt_s = 0.02
    episode_length_s = 10.0
    camera = anymal_c.CAMERA
    signal_table = SignalTable(
        [
            Signal("command_velocity_b", 2, "m/s", "body", "command", "wanted: forward -1..1, to the left -0.5..0.5"),
            Signal("command_yaw_rate", 1, "rad/s", "body", "command", "wanted turning rate, -1..1, left is positive"),
            Signal("base_height", 1, "m", "world", "position", "of the base's centre above the ground; 0.5 standing"),
            Signal("base_linear_velocity_b", 3, "m/s", "body", "linear_velocity", "of the base: forward, left, up"),
            Signal("base_angular_velocity_b", 3, "rad/s", "body", "angular_velocity", "roll, pitch and yaw rate"),
            Signal("projected_gravity_b", 3, "1", "body", "direction", "where down is; (0, 0, -1) when level"),
            Signal("joint_pos_offset", 12, "rad", "joint", "joint_pos", "joint angles minus those of the default pose"),
            Signal("joint_vel", 12, "rad/s", "joint", "joint_vel", "joint velocities"),
            Signal("joint_torque", 12, "N m", "joint", "force", "servo torques now, -80..80"),
            Signal("foot_contact", 4, "1", "-", "contact", "1 where the foot touches the ground, else 0"),
            Signal("foot_height", 4, "m", "world", "distance", "lowest point of the foot above ground; -0.02 standing"),
            Signal("foot_speed", 4, "m/s", "world", "linear_velocity", "horizontal speed of the foot, never negative"),
            Signal("foot_air_time", 4, "s", "-", "contact", "time since the foot left the ground; in the step that it "
                   "touches down the whole swing's, then 0"),
            Signal("foot_touchdown", 4, "1", "-", "contact", "1 in the step in which the foot touches down, else 0"),
            Signal("actions", 12, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 12, "1", "joint", "action", "actions of the step before"),
        ]
    )  # fmt: skip
    fitness_unit = "(m/s)^2"
    fitness_doc = "minus the mean squared error of forward, sideways (m/s) and yaw velocity (rad/s); a fallen step: -4"
    fitness_reduce = "mean"
    # Standing still never costs more than the largest command squared, 2.25: whoever falls would have done better so.
    fitness_failed = -4.0

    def build_model(self) -> mujoco.MjModel:
        """The training model."""
        return anymal_c.training_model()

    def build_visual_model(self) -> mujoco.MjModel:
        """The robot as shipped; its joints are the training model's."""
        return anymal_c.visual_model()

    def setup(self, sim: Simulation) -> None:
        """The command (vx, vy, yaw rate), for how many steps it holds yet, and the feet's time in the air."""
        sim.memory["command"] = torch.zeros(sim.num_envs, 3)
        sim.memory["command_steps"] = torch.zeros(sim.num_envs, dtype=torch.int64)
        sim.memory["air_time"] = torch.zeros(sim.num_envs, 4)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Near the default pose on the ground, facing anywhere, with a new command."""
        n = len(env_ids)
        heading = uniform((n,), -torch.pi, torch.pi, rng)
        qpos = torch.zeros(n, 19)
        qpos[:, 2] = anymal_c.STAND_HEIGHT_M
        qpos[:, 3:7] = quat_from_axis_angle(WORLD_UP, heading)
        noise = uniform((n, 12), -RESET_JOINT_NOISE_RAD, RESET_JOINT_NOISE_RAD, rng)
        qpos[:, 7:] = STAND_POSE_RAD + noise
        qvel = torch.zeros(n, 18)
        qvel[:, :6] = uniform((n, 6), -RESET_VELOCITY, RESET_VELOCITY, rng)
        self._draw_commands(sim, env_ids, rng)
        sim.memory["air_time"] = sim.memory["air_time"].index_fill(0, env_ids, 0.0)
        sim.set_state(env_ids, qpos, qvel)

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Joint position targets around the default pose."""
        sim.set_ctrl(STAND_POSE_RAD + ACTION_SCALE_RAD * actions)

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor:
        """Count the feet's time in the air; draw a new command where the old one's time is up."""
        in_air = signals["foot_contact"] == 0.0
        sim.memory["air_time"] = torch.where(in_air, sim.memory["air_time"] + self.control_dt_s, 0.0)
        sim.memory["command_steps"] = sim.memory["command_steps"] - 1
        due = sim.memory["command_steps"] <= 0
        self._draw_commands(sim, due.nonzero()[:, 0], rng)
        return due

    def signals(self, sim: SimulationState) -> Signals:
        """A free joint's qvel is linear in the world and angular in the body frame."""
        qpos, qvel, command = sim.qpos, sim.qvel, sim.memory["command"]
        orientation, joint_offset = qpos[:, 3:7], qpos[:, 7:] - STAND_POSE_RAD
        actions, air_time = sim.memory["actions"], sim.memory["air_time"]
        feet = [sim.sensor(name) for name in anymal_c.FEET]
        velocities = [sim.sensor(f"{name}_velocity") for name in anymal_c.FEET]
        foot_height = torch.stack([foot[:, 2] for foot in feet], dim=-1) - anymal_c.FOOT_RADIUS_M
        in_air = foot_height >= 0.0
        low, high = self._ctrl_range(sim)  # a servo's target stays within its joint's range
        target = (STAND_POSE_RAD + ACTION_SCALE_RAD * actions).clamp(low, high)
        torque = anymal_c.STIFFNESS_N_M * (target - qpos[:, 7:]) - anymal_c.DAMPING_N_M_S * qvel[:, 6:]
        return {
            "command_velocity_b": command[:, :2],
            "command_yaw_rate": command[:, 2:],
            "base_height": qpos[:, 2:3],
            "base_linear_velocity_b": quat_rotate_inverse(orientation, qvel[:, :3]),
            "base_angular_velocity_b": qvel[:, 3:6],
            "projected_gravity_b": quat_rotate_inverse(orientation, WORLD_DOWN.expand(len(orientation), 3)),
            "joint_pos_offset": joint_offset,
            "joint_vel": qvel[:, 6:],
            "joint_torque": torque.clamp(-anymal_c.TORQUE_LIMIT_N_M, anymal_c.TORQUE_LIMIT_N_M),
            "foot_contact": (~in_air).float(),
            "foot_height": foot_height,
            "foot_speed": torch.stack([torch.hypot(v[:, 0], v[:, 1]) for v in velocities], dim=-1),
            "foot_air_time": air_time + self.control_dt_s * in_air.float(),
            "foot_touchdown": (~in_air & (air_time > 0.0)).float(),
            "actions": actions,
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 48): base velocities, gravity, command, joints, last actions."""
        parts = [
            signals["base_linear_velocity_b"],
            signals["base_angular_velocity_b"],
            signals["projected_gravity_b"],
            signals["command_velocity_b"],
            signals["command_yaw_rate"],
            signals["joint_pos_offset"],
            signals["joint_vel"],
            signals["actions"],
        ]
        return torch.cat(parts, dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Fallen: the base is so low that a knee may touch the ground, or tilted by more than 70 degrees."""
        return {
            "base_too_low": signals["base_height"][:, 0] < anymal_c.MIN_HEIGHT_M,
            "tilted": signals["projected_gravity_b"][:, 2] > -MAX_TILT_COS,
        }

    def fitness(self, signals: Signals) -> Tensor:
        """Minus the squared tracking error of this step (N,)."""
        velocity, rate = signals["base_linear_velocity_b"], signals["base_angular_velocity_b"]
        error = velocity[:, :2] - signals["command_velocity_b"]
        yaw_error = rate[:, 2] - signals["command_yaw_rate"][:, 0]
        return -(error[:, 0].square() + error[:, 1].square() + yaw_error.square())

    def _draw_commands(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """New commands for worlds env_ids (n,), which hold for COMMAND_TIME_S."""
        n = len(env_ids)
        command = uniform((n, 3), -1.0, 1.0, rng) * MAX_COMMAND
        standing = uniform((n, 1), 0.0, 1.0, rng) < STANDING_SHARE
        command = torch.where(standing, torch.zeros_like(command), command)
        steps = round(COMMAND_TIME_S / self.control_dt_s)
        sim.memory["command"] = sim.memory["command"].index_copy(0, env_ids, command)
        sim.memory["command_steps"] = sim.memory["command_steps"].index_fill(0, env_ids, steps)
