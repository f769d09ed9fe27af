"""A left Shadow hand holds a bottle across its palm, a right one is at the cap: pull it off, and drop nothing.

After Bi-DexHands' BottleCap: episodes of 125 steps at 60 Hz (2.08 s), over when the bottle falls, leaves the left
palm by 0.2 m, or the right palm is 0.5 m from the cap. Differs: what `tasks.bimanual.two_hands` says; the bottle is
built here, lies across the palm and is not tilted; its cap slides along the bottle's axis and turns freely.

Does not model: a thread; the cap's joint resists like a plug.
Axes: N worlds, 52 actions. The left hand's palm is up, its fingers point along +x; the right hand's palm is down, its
fingers point along +y, at the cap.
"""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from tasks.bimanual.grip import GripTask, grip_signals
from tasks.bimanual.two_hands import START_POSITION_NOISE_M, action_doc, rest_pose
from tasks.dexterous.in_hand import solid
from tasks.math import constant, quat_axis, quat_rotate, uniform
from tasks.robots.edit import add_sensors
from tasks.robots.shadow_pair import Place, Reach
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import SimulationState

HEIGHT_M = 0.5
"""Of the left forearm's end above the floor."""
BOTTLE_RADIUS_M, BOTTLE_HALF_LENGTH_M, BOTTLE_MASS_KG = 0.028, 0.05, 0.15
CAP_RADIUS_M, CAP_HALF_LENGTH_M, CAP_MASS_KG = 0.021, 0.016, 0.02
FRICTION = (1.0, 0.01, 0.003)
"""Sliding, torsional, rolling; Bi-DexHands has a sliding friction of 100."""
CAP_FRICTION_N, CAP_DAMPING_N_S_M, CAP_TURN_FRICTION_N_M = 0.5, 2.0, 0.005
CAP_RANGE_M = 0.06
HOLD_M = (0.013, -0.011, 0.545)
"""Middle of the bottle where it lies in the left hand."""
START_ABOVE_M = 0.012
MIN_HEIGHT_M = 0.45
"""Below this the bottle has fallen."""
FAR_RIGHT_M, FAR_LEFT_M = 0.5, 0.2
"""From the right palm to the cap and from the left one to the bottle; Bi-DexHands."""
REACH = Reach(slide_m=0.15, turn_rad=0.5)
HOLD_RAD = rest_pose(knuckle=0.9, curl=1.4, thumb=(0.0, 0.3, 0.0, 0.0, 0.3))
OPEN_RAD = rest_pose(knuckle=0.2, curl=0.3, thumb=(0.3, 0.9, 0.0, 0.2, 0.2))

FITNESS_LIFT_M = 0.03


class ShadowBottleCap(GripTask):
    """Pull the cap off."""

    name = "shadow-bottle-cap"
    instruction = (
        "make the left shadow hand hold a bottle and the right one pull its cap off, along the bottle's axis, without "
        "dropping the bottle"
    )
    action_doc = action_doc(
        "left: palm up, fingers around the bottle; right: palm down, fingers nearly straight", REACH
    )
    right = Place((HOLD_M[0], -0.49, HOLD_M[2] + 0.105), math.pi / 2, 0.0, math.pi)
    left = Place((-0.305, 0.0, HEIGHT_M))
    reach = REACH
    right_rest_rad, left_rest_rad = OPEN_RAD, HOLD_RAD
    episode_length_s = 125.0 / 60.0
    camera_position_m = (0.42, -0.42, 0.95)
    camera_target_m = (-0.02, -0.1, 0.53)
    signal_table = SignalTable(
        [
            *grip_signals("the cap", "the bottle"),
            Signal(
                "bottle_axis_w", 3, "1", "world", "direction", "from the bottle to its cap; the cap comes off that way"
            ),
            Signal("bottle_linear_velocity_w", 3, "m/s", "world", "linear_velocity", "of the bottle"),
            Signal("bottle_angular_velocity_w", 3, "rad/s", "world", "angular_velocity", "of the bottle"),
            Signal("cap_pos", 1, "m", "joint", "joint_pos", "how far the cap is off; 0 shut, 0.06 at most"),
            Signal("cap_vel", 1, "m/s", "joint", "joint_vel", "positive while it comes off"),
            Signal("cap_turn_vel", 1, "rad/s", "joint", "joint_vel", "how fast it turns"),
        ]
    )
    fitness_doc = "share of episodes in which the cap comes off by more than 3 cm"

    def add_objects(self, spec: mujoco.MjSpec, *, visual: bool) -> None:
        """The bottle, its axis along its own x, and the cap at the end of it."""
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        half = math.sqrt(0.5)
        along_x = [half, 0.0, half, 0.0]  # a cylinder's axis is z
        bottle = spec.worldbody.add_body(name="bottle", pos=list(HOLD_M))
        bottle.add_freejoint(name="bottle")
        bottle.add_geom(
            name="bottle",
            type=cylinder,
            quat=along_x,
            size=[BOTTLE_RADIUS_M, BOTTLE_HALF_LENGTH_M, 0.0],
            rgba=[0.30, 0.62, 0.45, 1.0],
            **solid(bottle, ghost=False, mass_kg=BOTTLE_MASS_KG, friction=FRICTION),
        )
        cap = bottle.add_body(name="cap", pos=[BOTTLE_HALF_LENGTH_M + CAP_HALF_LENGTH_M, 0.0, 0.0])
        cap.add_joint(
            name="cap",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[1.0, 0.0, 0.0],
            range=[0.0, CAP_RANGE_M],
            damping=[CAP_DAMPING_N_S_M, 0.0, 0.0],
            frictionloss=CAP_FRICTION_N,
        )
        cap.add_joint(
            name="cap_turn",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[1.0, 0.0, 0.0],
            frictionloss=CAP_TURN_FRICTION_N_M,
        )
        cap.add_geom(
            name="cap",
            type=cylinder,
            quat=along_x,
            size=[CAP_RADIUS_M, CAP_HALF_LENGTH_M, 0.0],
            rgba=[0.90, 0.85, 0.30, 1.0],
            **solid(cap, ghost=False, mass_kg=CAP_MASS_KG, friction=FRICTION),
        )
        bodies = {"right_grip_position": "cap", "left_grip_position": "bottle"}
        add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_XBODY, bodies)

    def start_objects(self, n: int, rng: torch.Generator) -> Tensor:
        """Across the left palm, the cap towards the right hand (-y)."""
        place = constant((HOLD_M[0], HOLD_M[1], HOLD_M[2] + START_ABOVE_M), rng.device).repeat(n, 1)
        place[:, 1] += uniform((n,), -START_POSITION_NOISE_M, START_POSITION_NOISE_M, rng)
        half = math.sqrt(0.5)
        across = constant((half, 0.0, 0.0, -half), rng.device).expand(n, 4)
        return torch.cat([place, across, torch.zeros(n, 2)], dim=-1)

    def signals(self, sim: SimulationState) -> Signals:
        """The hands', bottle and cap from qpos and qvel."""
        qpos, qvel = self.objects_qpos(sim), self.objects_qvel(sim)
        orientation = qpos[:, 3:7]
        return self.grips_now(sim) | {
            "bottle_axis_w": quat_axis(orientation, 0),
            "bottle_linear_velocity_w": qvel[:, :3],
            # A free joint's angular velocity is in the body's frame.
            "bottle_angular_velocity_w": quat_rotate(orientation, qvel[:, 3:6]),
            "cap_pos": qpos[:, 7:8],
            "cap_vel": qvel[:, 6:7],
            "cap_turn_vel": qvel[:, 7:8],
        }

    def object_parts(self, signals: Signals) -> list[Tensor]:
        """Bottle and cap."""
        names = ("bottle_axis_w", "bottle_linear_velocity_w", "bottle_angular_velocity_w")
        return [signals[name] for name in (*names, "cap_pos", "cap_vel", "cap_turn_vel")]

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """The bottle has fallen or left the left palm, or the right hand has left the cap."""
        return {
            "dropped": signals["left_grip_position_w"][:, 2] < MIN_HEIGHT_M,
            "bottle_far": signals["left_palm_distance"][:, 0] > FAR_LEFT_M,
            "right_hand_far": signals["right_palm_distance"][:, 0] > FAR_RIGHT_M,
        }

    def fitness(self, signals: Signals) -> Tensor:
        """1 while the cap is farther than 3 cm from where it sits, as in the Eureka paper's code; the episode keeps the
        largest."""
        return (signals["cap_pos"][:, 0] > FITNESS_LIFT_M).float()
