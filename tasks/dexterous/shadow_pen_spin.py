"""A Shadow hand, palm up, that spins a pen about the vertical.

The goals are a fixed cycle: each is an eighth of a turn after the last. What counts is where the pen points; its roll
about its own axis is free. A goal is reached within 0.2 rad, the tolerance of IsaacGymEnvs' ShadowHand with a pen.
What happens in a step stands in `tasks.dexterous.in_hand`: targets, goals, signals.

Does not model: noise and delay of cameras that would see the pen.
Axes: N worlds, 20 actions. The forearm is fixed; the wrist moves.
"""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from tasks.dexterous.in_hand import InHandTask, signal_table, solid
from tasks.dexterous.shadow_grasp import FINGER_ORDER, JOINT_ORDER, SERVO_ORDER, shadow_grasp
from tasks.math import constant, quat_axis, quat_from_axis_angle, quat_multiply, uniform
from tasks.robots import shadow
from tasks.signals import Signals

PEN_RADIUS_M, PEN_HALF_LENGTH_M = 0.009, 0.07
PEN_MASS_KG = 0.03
PEN_FRICTION = (0.5, 0.01, 0.003)
"""Sliding, torsional, rolling: the object in Menagerie's scene of this hand."""
START_HEADING_RAD = (math.pi / 2 - 0.3, math.pi / 2 + 0.3)
"""Across the fingers, give or take: 0.3 rad is IsaacGymEnvs' for the pen."""
STEP_RAD = math.pi / 4
"""From one goal to the next, counter-clockwise from above."""
GRASP = shadow_grasp(hold_position_m=(0.318, -0.003, 0.582))


class ShadowPenSpin(InHandTask):
    """Point the pen along the goal, then along the next."""

    name = "shadow-pen-spin"
    instruction = "make the shadow hand spin the pen about the vertical, from one goal to the next, as often as it can"
    action_doc = (
        "20 servo targets, each in [-1, 1] (values outside are clipped): 0 is the rest pose that holds the pen, 1 is "
        f"0.8 rad more, within the joint's limits; targets are smoothed over two steps. Order: {SERVO_ORDER}."
    )
    robot = shadow.ROBOT
    grasp = GRASP
    goal_tolerance_rad = 0.2
    signal_table = signal_table(
        GRASP,
        fingers=FINGER_ORDER,
        thing="pen",
        position=JOINT_ORDER,
        axis_note="; the pen points along its own z axis, its roll does not count",
    )
    fitness_unit = "goals per episode"
    fitness_doc = (
        "goals reached in an episode of 20 s, each an eighth of a turn after the last and reached within 0.2 rad"
    )

    def add_object(self, body: mujoco.MjsBody, *, ghost: bool, visual: bool) -> None:
        """The pen; in videos its tip is red."""
        material = solid(body, ghost=ghost, mass_kg=PEN_MASS_KG, friction=PEN_FRICTION)
        kind, alpha = "goal" if ghost else "object", 0.55 if ghost else 1.0
        body.add_geom(
            name=kind,
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            size=[PEN_RADIUS_M, PEN_HALF_LENGTH_M, 0.0],
            rgba=[0.2, 0.3, 0.8, alpha],
            **material,
        )
        if visual:
            body.add_geom(
                name=f"{kind}_tip",
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                pos=[0.0, 0.0, PEN_HALF_LENGTH_M],
                size=[1.2 * PEN_RADIUS_M, 0.0, 0.0],
                rgba=[0.85, 0.2, 0.2, alpha],
                contype=0,
                conaffinity=0,
                mass=0.0,
            )

    def start_orientation(self, n: int, rng: torch.Generator) -> Tensor:
        """Lying, its tip to the left."""
        vertical, side = (constant(axis, rng.device).expand(n, 3) for axis in ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0)))
        lying = quat_from_axis_angle(side, torch.full((n,), math.pi / 2))
        return quat_multiply(quat_from_axis_angle(vertical, uniform((n,), *START_HEADING_RAD, rng)), lying)

    def next_goal(self, previous: Tensor, rng: torch.Generator) -> Tensor:
        """One step further round the vertical."""
        n = len(previous)
        vertical = constant((0.0, 0.0, 1.0), previous.device).expand(n, 3)
        return quat_multiply(quat_from_axis_angle(vertical, torch.full((n,), STEP_RAD)), previous)

    def rotation_left(self, orientation: Tensor, goal: Tensor) -> Tensor:
        """The shortest rotation that points the pen along the goal."""
        now, wanted = quat_axis(orientation, 2), quat_axis(goal, 2)
        across = torch.linalg.cross(now, wanted)
        chord = torch.linalg.norm(wanted - now, dim=-1, keepdim=True)
        angle = 2.0 * torch.asin((0.5 * chord).clamp(max=1.0))
        return angle * across / torch.linalg.norm(across, dim=-1, keepdim=True).clamp(min=1e-6)

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 104): joints, servos, fingertips from the pen, the pen, the rotation left."""
        parts = [
            signals["joint_pos_fraction"],
            signals["joint_vel"],
            signals["servo_target_offset"],
            signals["fingertip_offset_w"],
            signals["hold_offset_w"],
            quat_axis(signals["object_orientation_w"], 2),
            signals["object_linear_velocity_w"],
            signals["object_angular_velocity_w"],
            quat_axis(signals["goal_orientation_w"], 2),
            signals["rotation_to_goal_w"],
        ]
        return torch.cat(parts, dim=-1)
