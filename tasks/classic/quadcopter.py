"""A quadcopter with four thrust motors that flies to a fixed point and stays there: one of our own, and Skydio's X2.

Mass, layout and thrust and their sources stand in quadcopter.xml. Unlike IsaacGymEnvs' Quadcopter its rotors do not
tilt. Start position, target and limits are that task's; the start's tilt and velocities are added here, so that
constant hover thrust drifts away.

`QuadcopterHover` does not model: air drag, rotor spin-up, sensor noise. `X2Hover` is the same task on the X2 as
Menagerie ships it (`tasks.robots.x2`), drag included. Its left rotors turn one way and its right rotors the other, so
that roll and yaw cannot be set apart: a roll brings a small yaw with it.
Axes: N worlds, 4 actions in the order rear right, rear left, front left, front right. Body x is forward, y left, z
up.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import mujoco
import torch
from torch import Tensor

from tasks.math import constant, quat_axis, quat_from_axis_angle, quat_multiply, quat_rotate_inverse, uniform
from tasks.robots import x2
from tasks.robots.edit import compile_spec
from tasks.scene import furnish
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

TARGET_POSITION_M = (0.0, 0.0, 1.0)
MAX_DISTANCE_M = 3.0
MIN_HEIGHT_M = 0.3
START_OFFSET_M = ((-1.5, 1.5), (-1.5, 1.5), (-0.2, 1.5))
"""Uniform around the target; this, the target and both limits: IsaacGymEnvs' Quadcopter."""
START_TILT_RAD = 0.3
START_SPEED_M_S = 0.3
START_RATE_RAD_S = 0.3
"""Chosen here: a world that holds hover thrust is lost within seconds."""

FITNESS_FAILED_M = -3.0
"""What each step after a failure counts: minus the distance at which a flight ends."""


class QuadcopterHover(Task):
    """Fly to the target and hover there."""

    name = "quadcopter-hover"
    instruction = "make the quadcopter reach and hover near a fixed position"
    action_doc = (
        "4 rotor thrusts, each in [-1, 1] (values outside are clipped): -1 is no thrust, 0 a quarter of the weight "
        "(all four at 0 hover when level), 1 half the weight (6.5 N). Order: rear right, rear left, front left, front "
        "right. Diagonal rotors turn the same way round: front left and rear right push the yaw rate down, the "
        "others up, 0.02 N m per N."
    )
    xml = Path(__file__).with_name("quadcopter.xml")
    control_dt_s = 0.02
    episode_length_s = 10.0
    camera = "front"
    signal_table = SignalTable(
        [
            Signal("position_w", 3, "m", "world", "position", "centre of mass; z is the height above the floor"),
            Signal("orientation_w", 4, "1", "world", "orientation", "unit quaternion, w first"),
            Signal("up_axis_w", 3, "1", "world", "direction", "the quadcopter's own up axis; (0, 0, 1) when level"),
            Signal("forward_axis_w", 3, "1", "world", "direction", "where the nose points"),
            Signal("linear_velocity_w", 3, "m/s", "world", "linear_velocity", "velocity of the centre of mass"),
            Signal("linear_velocity_b", 3, "m/s", "body", "linear_velocity", "the same along the body's own axes"),
            Signal("angular_velocity_b", 3, "rad/s", "body", "angular_velocity", "roll, pitch, yaw rate"),
            Signal("target_position_w", 3, "m", "world", "command", "where to hover; always (0, 0, 1)"),
            Signal("target_offset_w", 3, "m", "world", "position", "from the quadcopter to the target"),
            Signal("target_offset_b", 3, "m", "body", "position", "the same along the body's own axes"),
            Signal("target_distance", 1, "m", "world", "distance", "to the target; the flight is lost beyond 3"),
            Signal("actions", 4, "1", "-", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 4, "1", "-", "action", "actions of the step before"),
        ]
    )
    fitness_unit = "m"
    fitness_doc = "minus the mean distance to the target over the whole 10 s; every step after a failure counts -3"
    fitness_reduce = "mean"
    fitness_failed = FITNESS_FAILED_M

    def setup(self, sim: Simulation) -> None:
        """The target, the same in every world."""
        target = torch.tensor(TARGET_POSITION_M, device=sim.device)
        sim.memory["target_position_w"] = target.repeat(sim.num_envs, 1)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Around the target, any heading, tilted up to 0.3 rad in any direction, slowly moving and turning."""
        n = len(env_ids)
        offset = torch.stack([uniform((n,), low, high, rng) for low, high in START_OFFSET_M], dim=-1)
        heading, bearing = (uniform((n,), -math.pi, math.pi, rng) for _ in range(2))
        zero = torch.zeros_like(bearing)
        up = constant((0.0, 0.0, 1.0), sim.device).expand(n, 3)
        tilt_axis = torch.stack([torch.cos(bearing), torch.sin(bearing), zero], dim=-1)
        tilt = quat_from_axis_angle(tilt_axis, uniform((n,), 0.0, START_TILT_RAD, rng))
        orientation = quat_multiply(tilt, quat_from_axis_angle(up, heading))
        velocity = uniform((n, 3), -START_SPEED_M_S, START_SPEED_M_S, rng)
        rate = uniform((n, 3), -START_RATE_RAD_S, START_RATE_RAD_S, rng)
        position = constant(TARGET_POSITION_M, sim.device) + offset
        sim.set_state(env_ids, torch.cat([position, orientation], dim=-1), torch.cat([velocity, rate], dim=-1))

    def signals(self, sim: SimulationState) -> Signals:
        """Everything from qpos and qvel; a free joint's qvel is linear in the world and angular in the body frame."""
        position, orientation = sim.qpos[:, :3], sim.qpos[:, 3:7]
        velocity = sim.qvel[:, :3]
        target = sim.memory["target_position_w"]
        offset = target - position
        return {
            "position_w": position,
            "orientation_w": orientation,
            "up_axis_w": quat_axis(orientation, 2),
            "forward_axis_w": quat_axis(orientation, 0),
            "linear_velocity_w": velocity,
            "linear_velocity_b": quat_rotate_inverse(orientation, velocity),
            "angular_velocity_b": sim.qvel[:, 3:6],
            "target_position_w": target,
            "target_offset_w": offset,
            "target_offset_b": quat_rotate_inverse(orientation, offset),
            "target_distance": torch.linalg.norm(offset, dim=-1, keepdim=True),
            "actions": sim.memory["actions"],
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """Target, velocity, rates and the world's up direction, all in the body frame (N, 12)."""
        up_w = torch.zeros_like(signals["position_w"])
        up_w[:, 2] = 1.0
        up_b = quat_rotate_inverse(signals["orientation_w"], up_w)
        return torch.cat(
            [signals["target_offset_b"], signals["linear_velocity_b"], signals["angular_velocity_b"], up_b], dim=-1
        )

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Too far from the target, or too near the floor."""
        return {
            "too_far": signals["target_distance"][:, 0] > MAX_DISTANCE_M,
            "too_low": signals["position_w"][:, 2] < MIN_HEIGHT_M,
        }

    def fitness(self, signals: Signals) -> Tensor:
        """Minus the distance to the target."""
        return -signals["target_distance"][:, 0]


class X2Hover(QuadcopterHover):
    """The same with Skydio's X2."""

    name = "x2-hover"
    instruction = "make the Skydio X2 reach and hover near a fixed position"
    action_doc = (
        "4 rotor thrusts, each in [-1, 1] (values outside are clipped): -1 is no thrust, 0 a quarter of the weight "
        "(all four at 0 hover when level), 1 half the weight (6.5 N). Order: rear right, rear left, front left, front "
        "right. More thrust on the right pushes the yaw rate down, on the left up, 0.02 N m per N."
    )
    xml = ""
    robot = x2.ROBOT
    signal_table = SignalTable(
        replace(signal, doc="the X2's own frame, 5 cm below its centre of mass; z is the height above the floor")
        if signal.name == "position_w"
        else replace(signal, doc="velocity of that frame")
        if signal.name == "linear_velocity_w"
        else signal
        for signal in QuadcopterHover.signal_table
    )

    def build_model(self) -> mujoco.MjModel:
        """The X2's training model. Raises UserError where the robot cannot be had."""
        return compile_spec(_x2_scene(x2.training_spec()), self.name)

    def build_visual_model(self) -> mujoco.MjModel:
        """The X2 as shipped."""
        return compile_spec(_x2_scene(x2.visual_spec()), self.name)

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Around the thrust that holds the weight; the motors could do twice as much."""
        hover_n = float(sim.model.body_mass.sum()) * -float(sim.model.opt.gravity[2]) / 4
        sim.set_ctrl(hover_n * (1.0 + actions))


def _x2_scene(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Add a picture of the target, light, ground and a camera to the X2."""
    furnish(spec, camera="front", position=(0.0, -3.6, 1.9), target=(0.0, 0.0, 1.15))
    spec.worldbody.add_geom(
        name="target",
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[0.07, 0.0, 0.0],
        pos=list(TARGET_POSITION_M),
        rgba=[0.35, 0.80, 0.42, 0.45],
        contype=0,
        conaffinity=0,
    )
    return spec
