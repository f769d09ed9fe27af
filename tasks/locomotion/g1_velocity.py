"""Unitree G1 follows velocity commands on flat ground: forward, sideways, turning; joint position targets at 50 Hz.

The robot and how its training model differs from the one shipped: `tasks.robots.g1`. Commands are those of Isaac Lab's
flat G1, the default pose, servos and falls those of mjlab's G1, as is the tenth of commands that is to stand still.

Does not model: limbs touching each other, motor dynamics and delays, sensor noise, pushes, rough ground.
Axes: N worlds; 29 joints: left leg, right leg (hip pitch, roll, yaw, knee, ankle pitch, roll each), waist yaw, roll,
pitch, left arm, right arm (shoulder pitch, roll, yaw, elbow, wrist roll, pitch, yaw each); 2 feet: left, right.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from tasks.math import quat_from_axis_angle, quat_rotate_inverse, uniform
from tasks.robots import g1
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

MAX_COMMAND = torch.tensor([1.0, 0.5, 1.0])
"""Largest forward speed (m/s), sideways speed (m/s) and yaw rate (rad/s) that is commanded, either way."""
COMMAND_TIME_S = 4.0
"""A command holds so long; mjlab draws 3 to 8 s."""
STANDING_SHARE = 0.1
"""Share of commands that are to stand still; mjlab's velocity tasks."""
MAX_TILT_COS = 0.342
"""Cosine of the tilt at which the robot has fallen, 70 degrees; mjlab's velocity tasks."""
STAND_POSE_RAD = torch.tensor(g1.STAND_POSE_RAD)
SERVOS = [g1.servo(joint) for joint in g1.JOINTS]
STIFFNESS_N_M = torch.tensor([servo.stiffness for servo in SERVOS])
DAMPING_N_M_S = torch.tensor([servo.damping for servo in SERVOS])
TORQUE_LIMIT_N_M = torch.tensor([g1.motor(joint).torque_limit_n_m for joint in g1.JOINTS])
ACTION_SCALE_RAD = 0.5 * TORQUE_LIMIT_N_M / STIFFNESS_N_M
"""Joint target at action 1, from the default pose (29,): half of what would call for the whole torque. mjlab's quarter
goes with actions that are not clipped."""
RESET_JOINT_NOISE_RAD = 0.05
RESET_VELOCITY = 0.1
"""m/s and rad/s, uniform; Isaac Lab's velocity tasks."""
WORLD_UP = torch.tensor([0.0, 0.0, 1.0])
WORLD_DOWN = torch.tensor([0.0, 0.0, -1.0])


class G1Velocity(Task):
    """The G1 tracks (vx, vy, yaw rate)."""

    name = "g1-velocity"
    instruction = (
        "make the humanoid robot G1 follow commanded velocities (forward, sideways and turning), which change every 4 "
        "seconds, walking upright with a steady natural gait and without falling; where the command is zero it stands"
    )
    action_doc = (
        "29 joint position targets of the servos, each in [-1, 1] (values outside are clipped): target = default pose "
        "+ action x scale. Order and scale in rad: left leg: hip pitch 1.10, hip roll 0.70, hip yaw 1.10, knee 0.70, "
        "ankle pitch 0.88, ankle roll 0.88; right leg the same; waist yaw 1.10, roll 0.88, pitch 0.88; left arm: "
        "shoulder pitch, roll, yaw, elbow and wrist roll 0.88, wrist pitch and yaw 0.15; right arm the same. Negative "
        "hip pitch swings the leg forward, positive knee bends it."
    )
    robot = g1.ROBOT
    control_dt_s = 0.02
    episode_length_s = 10.0
    camera = g1.CAMERA
    signal_table = SignalTable(
        [
            Signal("command_velocity_b", 2, "m/s", "body", "command", "wanted: forward -1..1, to the left -0.5..0.5"),
            Signal("command_yaw_rate", 1, "rad/s", "body", "command", "wanted turning rate, -1..1, left is positive"),
            Signal("base_height", 1, "m", "world", "position", "of the pelvis above the ground; 0.76 standing"),
            Signal("base_linear_velocity_b", 3, "m/s", "body", "linear_velocity", "of the pelvis: forward, left, up"),
            Signal("base_angular_velocity_b", 3, "rad/s", "body", "angular_velocity", "roll, pitch and yaw rate"),
            Signal("projected_gravity_b", 3, "1", "body", "direction", "where down is; (0, 0, -1) when level"),
            Signal("joint_pos_offset", 29, "rad", "joint", "joint_pos", "joint angles minus those of the default pose"),
            Signal("joint_vel", 29, "rad/s", "joint", "joint_vel", "joint velocities"),
            Signal("joint_torque", 29, "N m", "joint", "force", "servo torques now, within the motors' limits"),
            Signal("foot_contact", 2, "1", "-", "contact", "1 where the foot touches the ground, else 0"),
            Signal("foot_height", 2, "m", "world", "distance", "lowest point of the sole above the ground"),
            Signal("foot_speed", 2, "m/s", "world", "linear_velocity", "horizontal speed of the foot, never negative"),
            Signal("foot_air_time", 2, "s", "-", "contact", "time that the foot has been in the air, 0 on the ground"),
            Signal("foot_contact_time", 2, "s", "-", "contact", "time that the foot has been down, 0 in the air"),
            Signal("actions", 29, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 29, "1", "joint", "action", "actions of the step before"),
        ]
    )
    fitness_unit = "(m/s)^2"
    fitness_doc = "minus the mean squared error of forward, sideways (m/s) and yaw velocity (rad/s); a fallen step: -4"
    fitness_reduce = "mean"
    # Standing still never costs more than the largest command squared, 2.25: whoever falls would have done better so.
    fitness_failed = -4.0

    def build_model(self) -> mujoco.MjModel:
        """The training model."""
        return g1.training_model()

    def build_visual_model(self) -> mujoco.MjModel:
        """The robot as shipped; its joints are the training model's."""
        return g1.visual_model()

    def setup(self, sim: Simulation) -> None:
        """The command (vx, vy, yaw rate), for how many steps it holds yet, and how long feet are in the air or down."""
        sim.memory["command"] = torch.zeros(sim.num_envs, 3)
        sim.memory["command_steps"] = torch.zeros(sim.num_envs, dtype=torch.int64)
        sim.memory["air_time"] = torch.zeros(sim.num_envs, 2)
        sim.memory["contact_time"] = torch.zeros(sim.num_envs, 2)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Near the default pose on the ground, facing anywhere, with a new command."""
        n = len(env_ids)
        heading = uniform((n,), -torch.pi, torch.pi, rng)
        qpos = torch.zeros(n, 36)
        qpos[:, 2] = g1.STAND_HEIGHT_M
        qpos[:, 3:7] = quat_from_axis_angle(WORLD_UP, heading)
        noise = uniform((n, 29), -RESET_JOINT_NOISE_RAD, RESET_JOINT_NOISE_RAD, rng)
        qpos[:, 7:] = STAND_POSE_RAD + noise
        qvel = torch.zeros(n, 35)
        qvel[:, :6] = uniform((n, 6), -RESET_VELOCITY, RESET_VELOCITY, rng)
        self._draw_commands(sim, env_ids, rng)
        for name in ("air_time", "contact_time"):
            sim.memory[name] = sim.memory[name].index_fill(0, env_ids, 0.0)
        sim.set_state(env_ids, qpos, qvel)

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Joint position targets around the default pose."""
        sim.set_ctrl(STAND_POSE_RAD + ACTION_SCALE_RAD * actions)

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor:
        """Keep the feet's times; draw a new command where the old one's time is up."""
        sim.memory["air_time"] = signals["foot_air_time"]
        sim.memory["contact_time"] = signals["foot_contact_time"]
        sim.memory["command_steps"] = sim.memory["command_steps"] - 1
        due = sim.memory["command_steps"] <= 0
        self._draw_commands(sim, due.nonzero()[:, 0], rng)
        return due

    def signals(self, sim: SimulationState) -> Signals:
        """A free joint's qvel is linear in the world and angular in the body frame."""
        qpos, qvel, command = sim.qpos, sim.qvel, sim.memory["command"]
        orientation, joint_offset, actions = qpos[:, 3:7], qpos[:, 7:] - STAND_POSE_RAD, sim.memory["actions"]
        spheres = torch.stack([sim.sensor(name)[:, 2] for name in g1.FOOT_SPHERES], dim=-1)  # (N, 8), four a foot
        foot_height = spheres.unflatten(-1, (2, 4)).amin(dim=-1) - g1.FOOT_RADIUS_M
        velocities = [sim.sensor(f"{side}_foot_velocity") for side in g1.SIDES]
        down = (foot_height < 0.0).float()
        low, high = self._ctrl_range(sim)  # a servo's target stays within its joint's range
        target = (STAND_POSE_RAD + ACTION_SCALE_RAD * actions).clamp(low, high)
        torque = STIFFNESS_N_M * (target - qpos[:, 7:]) - DAMPING_N_M_S * qvel[:, 6:]
        return {
            "command_velocity_b": command[:, :2],
            "command_yaw_rate": command[:, 2:],
            "base_height": qpos[:, 2:3],
            "base_linear_velocity_b": quat_rotate_inverse(orientation, qvel[:, :3]),
            "base_angular_velocity_b": qvel[:, 3:6],
            "projected_gravity_b": quat_rotate_inverse(orientation, WORLD_DOWN.expand(len(orientation), 3)),
            "joint_pos_offset": joint_offset,
            "joint_vel": qvel[:, 6:],
            "joint_torque": torch.clamp(torque, -TORQUE_LIMIT_N_M, TORQUE_LIMIT_N_M),
            "foot_contact": down,
            "foot_height": foot_height,
            "foot_speed": torch.stack([torch.hypot(v[:, 0], v[:, 1]) for v in velocities], dim=-1),
            "foot_air_time": (1.0 - down) * (sim.memory["air_time"] + self.control_dt_s),
            "foot_contact_time": down * (sim.memory["contact_time"] + self.control_dt_s),
            "actions": actions,
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 99): base velocities, gravity, command, joints, last actions."""
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
        """Fallen: the pelvis is so low that a knee may touch the ground, or tilted by more than 70 degrees."""
        return {
            "base_too_low": signals["base_height"][:, 0] < g1.MIN_HEIGHT_M,
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
