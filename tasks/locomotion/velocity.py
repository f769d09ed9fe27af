"""What tasks share in which a legged robot follows velocity commands: forward, sideways and turning.

Commands of a uniform box, one in ten to stand still, each for 4 s; joint position targets around a default pose; the
policy sees what legged_gym's and Isaac Lab's flat tasks show. It does not know which robot, what its feet touch, or
how they are timed: a task's file says these.

Axes: N worlds, J joints, A = J actions, F feet. A free joint comes first in qpos and qvel.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasks.math import constant, quat_from_axis_angle, quat_rotate_inverse, uniform
from tasks.randomize import Push, Randomize, Vary
from tasks.signals import Signals
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

MAX_COMMAND = (1.0, 0.5, 1.0)
"""Largest forward speed (m/s), sideways speed (m/s) and yaw rate (rad/s) that is commanded, either way."""
COMMAND_TIME_S = 4.0
"""A command holds so long; legged_gym's flat ANYmal C. mjlab draws 3 to 8 s."""
STANDING_SHARE = 0.1
"""Share of commands that are to stand still; mjlab's velocity tasks."""
MAX_TILT_COS = 0.342
"""Cosine of the tilt at which the robot has fallen, 70 degrees; mjlab's velocity tasks."""
RESET_VELOCITY = 0.1
"""m/s and rad/s, uniform; Isaac Lab's velocity tasks."""
WORLD_UP, WORLD_DOWN = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
SERVOS = ("stand_pose_rad", "action_scale_rad", "stiffness_n_m", "damping_n_m_s", "torque_limit_n_m")


class VelocityTask(Task):
    """Base class: a subclass names the robot, its pose and servos, and computes what its feet do."""

    stand_pose_rad: ClassVar[Tensor]
    """The default pose (J,)."""
    stand_height_m: ClassVar[float]
    """Of the base in that pose."""
    min_height_m: ClassVar[float]
    """A base lower than this has fallen: a knee may touch the ground."""
    reset_joint_noise_rad: ClassVar[float]
    """Uniform on each joint at the start of an episode."""
    action_scale_rad: ClassVar[float | Tensor]
    """Joint target at action 1, from the default pose."""
    stiffness_n_m: ClassVar[float | Tensor]
    """Of the servos, N m/rad."""
    damping_n_m_s: ClassVar[float | Tensor]
    """Of the servos, N m s/rad."""
    torque_limit_n_m: ClassVar[float | Tensor]
    """Of the servos."""
    feet: ClassVar[int]
    """F."""
    foot_timers: ClassVar[tuple[str, ...]]
    """Memory (N, F) in s that a task keeps of its feet; zero at the start of an episode."""
    # Friction and pushes are legged_gym's (there every 15 s); the others are what a robot's file leaves uncertain.
    randomize = Randomize(
        (Vary("friction", 0.5, 1.25), Vary("mass", 0.9, 1.1), Vary("gain", 0.9, 1.1), Vary("armature", 0.8, 1.2)),
        Push(1.0, (4.0, 8.0)),
    )
    control_dt_s = 0.02
    episode_length_s = 10.0
    fitness_unit = "(m/s)^2"
    fitness_doc = "minus the mean squared error of forward, sideways (m/s) and yaw velocity (rad/s); a fallen step: -4"
    fitness_reduce = "mean"
    # Standing still never costs more than the largest command squared, 2.25: whoever falls would have done better so.
    fitness_failed = -4.0

    def setup(self, sim: Simulation) -> None:
        """The command (vx, vy, yaw rate), for how many steps it holds yet, the feet's times; the servos' numbers."""
        for name in SERVOS:
            number = getattr(self, name)
            number = number if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.float32, device="cpu")
            sim.constants[name] = number.to(sim.device)
        n, device = sim.num_envs, sim.device
        sim.memory["command"] = torch.zeros(n, 3, device=device)
        sim.memory["command_steps"] = torch.zeros(n, dtype=torch.int64, device=device)
        for name in self.foot_timers:
            sim.memory[name] = torch.zeros(n, self.feet, device=device)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Near the default pose on the ground, facing anywhere, with a new command."""
        n, joints = len(env_ids), len(self.stand_pose_rad)
        heading = uniform((n,), -torch.pi, torch.pi, rng)
        qpos = torch.zeros(n, 7 + joints)
        qpos[:, 2] = self.stand_height_m
        qpos[:, 3:7] = quat_from_axis_angle(constant(WORLD_UP, sim.device), heading)
        noise = uniform((n, joints), -self.reset_joint_noise_rad, self.reset_joint_noise_rad, rng)
        qpos[:, 7:] = sim.constants["stand_pose_rad"] + noise
        qvel = torch.zeros(n, 6 + joints)
        qvel[:, :6] = uniform((n, 6), -RESET_VELOCITY, RESET_VELOCITY, rng)
        command, steps = self._draw_commands(n, rng)
        sim.memory["command"] = sim.memory["command"].index_copy(0, env_ids, command)
        sim.memory["command_steps"] = sim.memory["command_steps"].index_fill(0, env_ids, steps)
        for name in self.foot_timers:
            sim.memory[name] = sim.memory[name].index_fill(0, env_ids, 0.0)
        sim.set_state(env_ids, qpos, qvel)

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Joint position targets around the default pose."""
        sim.set_ctrl(self._servo_target(sim, actions))

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor:
        """Keep the feet's times; draw a new command where the old one's time is up."""
        self.time_feet(sim, signals)
        left = sim.memory["command_steps"] - 1
        due = left <= 0
        command, steps = self._draw_commands(sim.num_envs, rng)
        sim.memory["command"] = torch.where(due[:, None], command, sim.memory["command"])
        sim.memory["command_steps"] = torch.where(due, steps, left)
        return due

    def time_feet(self, sim: Simulation, signals: Signals) -> None:
        """Bring `foot_timers` up to date after a step."""
        raise NotImplementedError

    def body_signals(self, sim: SimulationState) -> Signals:
        """Signals of all but the feet. A free joint's qvel is linear in the world and angular in the body frame."""
        qpos, qvel, command, actions = sim.qpos, sim.qvel, sim.memory["command"], sim.memory["actions"]
        orientation, down = qpos[:, 3:7], constant(WORLD_DOWN, qpos.device)
        low, high = self._ctrl_range(sim)  # a servo's target stays within its joint's range
        pose, _, stiffness, damping, limit = (sim.constants[name] for name in SERVOS)
        target = self._servo_target(sim, actions).clamp(low, high)
        torque = stiffness * (target - qpos[:, 7:]) - damping * qvel[:, 6:]
        return {
            "command_velocity_b": command[:, :2],
            "command_yaw_rate": command[:, 2:],
            "base_height": qpos[:, 2:3],
            "base_linear_velocity_b": quat_rotate_inverse(orientation, qvel[:, :3]),
            "base_angular_velocity_b": qvel[:, 3:6],
            "projected_gravity_b": quat_rotate_inverse(orientation, down.expand(len(orientation), 3)),
            "joint_pos_offset": qpos[:, 7:] - pose,
            "joint_vel": qvel[:, 6:],
            "joint_torque": torque.clamp(-limit, limit),
            "actions": actions,
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 12 + 3 J): base velocities, gravity, command, joints, last actions."""
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
            "base_too_low": signals["base_height"][:, 0] < self.min_height_m,
            "tilted": signals["projected_gravity_b"][:, 2] > -MAX_TILT_COS,
        }

    def fitness(self, signals: Signals) -> Tensor:
        """Minus the squared tracking error of this step (N,)."""
        velocity, rate = signals["base_linear_velocity_b"], signals["base_angular_velocity_b"]
        error = velocity[:, :2] - signals["command_velocity_b"]
        yaw_error = rate[:, 2] - signals["command_yaw_rate"][:, 0]
        return -(error[:, 0].square() + error[:, 1].square() + yaw_error.square())

    def _servo_target(self, sim: SimulationState, actions: Tensor) -> Tensor:
        """Joint angles (N, J) that actions (N, A) ask for."""
        return sim.constants["stand_pose_rad"] + sim.constants["action_scale_rad"] * actions

    def _draw_commands(self, n: int, rng: torch.Generator) -> tuple[Tensor, int]:
        """Commands (n, 3), and for how many steps they hold."""
        command = uniform((n, 3), -1.0, 1.0, rng) * constant(MAX_COMMAND, rng.device)
        standing = uniform((n, 1), 0.0, 1.0, rng) < STANDING_SHARE
        return torch.where(standing, torch.zeros_like(command), command), round(COMMAND_TIME_S / self.control_dt_s)
