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

from tasks.locomotion.velocity import VelocityTask
from tasks.robots import anymal_c
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState


class AnymalVelocity(VelocityTask):
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
    camera = anymal_c.CAMERA
    stand_pose_rad = torch.tensor(anymal_c.STAND_POSE_RAD)
    stand_height_m = anymal_c.STAND_HEIGHT_M
    min_height_m = anymal_c.MIN_HEIGHT_M
    reset_joint_noise_rad = 0.1
    # legged_gym's 0.5 goes with actions that are not clipped.
    action_scale_rad = 1.0
    stiffness_n_m = anymal_c.STIFFNESS_N_M
    damping_n_m_s = anymal_c.DAMPING_N_M_S
    torque_limit_n_m = anymal_c.TORQUE_LIMIT_N_M
    feet = len(anymal_c.FEET)
    foot_timers = ("air_time",)
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

    def build_model(self) -> mujoco.MjModel:
        """The training model."""
        return anymal_c.training_model()

    def build_visual_model(self) -> mujoco.MjModel:
        """The robot as shipped; its joints are the training model's."""
        return anymal_c.visual_model()

    def time_feet(self, sim: Simulation, signals: Signals) -> None:
        """How long feet have been in the air."""
        in_air = signals["foot_contact"] == 0.0
        sim.memory["air_time"] = torch.where(in_air, sim.memory["air_time"] + self.control_dt_s, 0.0)

    def signals(self, sim: SimulationState) -> Signals:
        """The body's, and the feet's from sensors."""
        air_time = sim.memory["air_time"]
        feet = [sim.sensor(name) for name in anymal_c.FEET]
        velocities = [sim.sensor(f"{name}_velocity") for name in anymal_c.FEET]
        foot_height = torch.stack([foot[:, 2] for foot in feet], dim=-1) - anymal_c.FOOT_RADIUS_M
        in_air = foot_height >= 0.0
        return self.body_signals(sim) | {
            "foot_contact": (~in_air).float(),
            "foot_height": foot_height,
            "foot_speed": torch.stack([torch.hypot(v[:, 0], v[:, 1]) for v in velocities], dim=-1),
            "foot_air_time": air_time + self.control_dt_s * in_air.float(),
            "foot_touchdown": (~in_air & (air_time > 0.0)).float(),
        }
