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

from tasks.locomotion.velocity import VelocityTask
from tasks.robots import g1
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState

SERVOS = [g1.servo(joint) for joint in g1.JOINTS]
STIFFNESS_N_M = torch.tensor([servo.stiffness for servo in SERVOS])
DAMPING_N_M_S = torch.tensor([servo.damping for servo in SERVOS])
TORQUE_LIMIT_N_M = torch.tensor([g1.motor(joint).torque_limit_n_m for joint in g1.JOINTS])
ACTION_SCALE_RAD = 0.5 * TORQUE_LIMIT_N_M / STIFFNESS_N_M
"""Joint target at action 1, from the default pose (29,): half of what would call for the whole torque. mjlab's quarter
goes with actions that are not clipped."""


class G1Velocity(VelocityTask):
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
    camera = g1.CAMERA
    stand_pose_rad = torch.tensor(g1.STAND_POSE_RAD)
    stand_height_m = g1.STAND_HEIGHT_M
    min_height_m = g1.MIN_HEIGHT_M
    reset_joint_noise_rad = 0.05
    action_scale_rad = ACTION_SCALE_RAD
    stiffness_n_m = STIFFNESS_N_M
    damping_n_m_s = DAMPING_N_M_S
    torque_limit_n_m = TORQUE_LIMIT_N_M
    feet = len(g1.SIDES)
    foot_timers = ("air_time", "contact_time")
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

    def build_model(self) -> mujoco.MjModel:
        """The training model."""
        return g1.training_model()

    def build_visual_model(self) -> mujoco.MjModel:
        """The robot as shipped; its joints are the training model's."""
        return g1.visual_model()

    def time_feet(self, sim: Simulation, signals: Signals) -> None:
        """How long feet have been in the air, or down."""
        sim.memory["air_time"] = signals["foot_air_time"]
        sim.memory["contact_time"] = signals["foot_contact_time"]

    def signals(self, sim: SimulationState) -> Signals:
        """The body's, and the feet's from sensors."""
        spheres = torch.stack([sim.sensor(name)[:, 2] for name in g1.FOOT_SPHERES], dim=-1)  # (N, 8), four a foot
        foot_height = spheres.unflatten(-1, (2, 4)).amin(dim=-1) - g1.FOOT_RADIUS_M
        velocities = [sim.sensor(f"{side}_foot_velocity") for side in g1.SIDES]
        down = (foot_height < 0.0).float()
        return self.body_signals(sim) | {
            "foot_contact": down,
            "foot_height": foot_height,
            "foot_speed": torch.stack([torch.hypot(v[:, 0], v[:, 1]) for v in velocities], dim=-1),
            "foot_air_time": (1.0 - down) * (sim.memory["air_time"] + self.control_dt_s),
            "foot_contact_time": down * (sim.memory["contact_time"] + self.control_dt_s),
        }
