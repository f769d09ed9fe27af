"""Two Shadow hands before a door of two leaves that swing away from them; each has a handle near its free edge.

After Bi-DexHands' DoorOpenOutward: the hands start at the handles, episodes of 250 steps at 60 Hz (4.17 s), over when a
hand's fingertips are 1.5 m in all from its handle. Differs: what `tasks.bimanual.two_hands` says; the door is built
here, its handles 0.14 m apart when it is shut. The Eureka paper describes a door that is to be closed; its code starts
with a shut door that is to be opened, and so does this task.

Does not model: a latch, a closer, leaves that touch each other.
Axes: N worlds, 52 actions. The hands' fingers point along +x, palms face each other, thumbs up; the door is at x = 0.
"""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from tasks.bimanual.grip import GripTask, grip_signals
from tasks.bimanual.two_hands import action_doc, rest_pose
from tasks.dexterous.in_hand import solid
from tasks.math import uniform
from tasks.robots.edit import add_sensors
from tasks.robots.shadow_pair import Place, Reach
from tasks.scene import add_box
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import SimulationState

HEIGHT_M = 0.6
"""Of hands and handles above the floor."""
LEAF_WIDTH_M, LEAF_HALF_HEIGHT_M, LEAF_HALF_THICKNESS_M = 0.45, 0.28, 0.01
LEAF_MASS_KG, HINGE_DAMPING_N_M_S, HINGE_FRICTION_N_M = 1.5, 0.3, 0.1
"""Chosen here, as light cabinet doors."""
LEAF_FRICTION = (0.3, 0.005, 0.0001)
HANDLE_FROM_HINGE_M, HANDLE_STANDOFF_M, HANDLE_RADIUS_M, HANDLE_HALF_LENGTH_M = 0.38, 0.05, 0.01, 0.07
MAX_OPEN_RAD = 1.5
START_OPEN_RAD = (0.0, 0.02)
HAND_FROM_DOOR_M, HAND_HALF_GAP_M = 0.59, 0.12
"""Of the ends of the forearms; fingertips are 0.1 m before the handles."""
REACH = Reach(slide_m=0.4, turn_rad=0.8)
REST_RAD = rest_pose(knuckle=0.15, curl=0.2, thumb=(0.0, 0.6, 0.0, 0.1, 0.2))

FITNESS_GAP_M = 0.5


class ShadowDoorOpenOutward(GripTask):
    """Push both leaves open."""

    name = "shadow-door-open-outward"
    instruction = (
        "make two shadow hands open a door of two leaves, which is shut and swings away from the hands, by pushing its "
        "two handles far apart; each hand stays at the handle of its leaf"
    )
    action_doc = action_doc("fingers nearly straight, thumbs up", REACH)
    right = Place((-HAND_FROM_DOOR_M, -HAND_HALF_GAP_M, HEIGHT_M), 0.0, 0.0, -math.pi / 2)
    left = Place((-HAND_FROM_DOOR_M, HAND_HALF_GAP_M, HEIGHT_M), 0.0, 0.0, math.pi / 2)
    reach = REACH
    right_rest_rad = left_rest_rad = REST_RAD
    episode_length_s = 250.0 / 60.0
    far_m = (1.5, 1.5)
    camera_position_m = (-0.75, -0.75, 1.35)
    camera_target_m = (-0.12, 0.0, 0.58)
    signal_table = SignalTable(
        [
            *grip_signals("handle of the right leaf, a vertical bar", "handle of the left leaf"),
            Signal(
                "right_leaf_pos", 1, "rad", "joint", "joint_pos", "how far the right leaf is open; 0 shut, 1.5 at most"
            ),
            Signal("left_leaf_pos", 1, "rad", "joint", "joint_pos", "how far the left leaf is open"),
            Signal("right_leaf_vel", 1, "rad/s", "joint", "joint_vel", "positive while it opens"),
            Signal("left_leaf_vel", 1, "rad/s", "joint", "joint_vel", "positive while it opens"),
            Signal(
                "handle_gap",
                1,
                "m",
                "world",
                "distance",
                "distance between the handles along y; 0.14 when the door is shut",
            ),
        ]
    )
    fitness_doc = "share of episodes in which the handles come farther apart than 0.5 m across the door"

    def add_objects(self, spec: mujoco.MjSpec, *, visual: bool) -> None:
        """Two leaves with their handles, and the posts they hang on."""
        wood, dark, steel = (0.62, 0.45, 0.30, 1.0), (0.40, 0.29, 0.20, 1.0), (0.75, 0.77, 0.80, 1.0)
        for side, sign in (("right", -1.0), ("left", 1.0)):
            hinge_y = sign * LEAF_WIDTH_M
            post = (0.0, hinge_y + sign * 0.04, HEIGHT_M)
            add_box(spec.worldbody, f"{side}_post", post, (0.02, 0.03, 0.34), dark, contype=0, conaffinity=1)
            leaf = spec.worldbody.add_body(name=f"{side}_leaf", pos=[0.0, hinge_y, HEIGHT_M])
            leaf.add_joint(
                name=f"{side}_leaf",
                type=mujoco.mjtJoint.mjJNT_HINGE,
                axis=[0.0, 0.0, sign],
                range=[0.0, MAX_OPEN_RAD],
                damping=[HINGE_DAMPING_N_M_S, 0.0, 0.0],
                frictionloss=HINGE_FRICTION_N_M,
            )
            material = solid(leaf, ghost=False, mass_kg=LEAF_MASS_KG, friction=LEAF_FRICTION)
            half = LEAF_WIDTH_M / 2 - 0.001
            leaf.add_geom(
                name=f"{side}_leaf",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[0.0, -sign * LEAF_WIDTH_M / 2, 0.0],
                size=[LEAF_HALF_THICKNESS_M, half, LEAF_HALF_HEIGHT_M],
                rgba=list(wood),
                **material,
            )
            self._add_handle(leaf, side, -sign * HANDLE_FROM_HINGE_M, steel)
        sites = {f"{side}_grip_position": f"{side}_handle" for side in ("right", "left")}
        add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_SITE, sites)

    @staticmethod
    def _add_handle(leaf: mujoco.MjsBody, side: str, y: float, rgba: tuple[float, ...]) -> None:
        """A vertical bar on two short posts, on the hands' side of a leaf."""
        material = solid(leaf, ghost=False, mass_kg=0.05, friction=LEAF_FRICTION)
        x, z = -HANDLE_STANDOFF_M, HANDLE_HALF_LENGTH_M
        leaf.add_geom(
            name=f"{side}_handle",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[x, y, -z, x, y, z],
            size=[HANDLE_RADIUS_M, 0.0, 0.0],
            rgba=list(rgba),
            **material,
        )
        for place, at in (("low", -z), ("high", z)):
            half = (HANDLE_STANDOFF_M / 2, 0.006, 0.006)
            add_box(leaf, f"{side}_handle_{place}", (x / 2, y, at), half, rgba, contype=0, conaffinity=0)
        leaf.add_site(name=f"{side}_handle", pos=[x, y, 0.0], size=[0.001] * 3, group=5)

    def start_objects(self, n: int, rng: torch.Generator) -> Tensor:
        """Both leaves shut, or nearly."""
        return uniform((n, 2), *START_OPEN_RAD, rng)

    def signals(self, sim: SimulationState) -> Signals:
        """The hands', the handles from sensors, the leaves from qpos and qvel."""
        found = self.grips_now(sim)
        qpos, qvel = self.objects_qpos(sim), self.objects_qvel(sim)
        gap = found["left_grip_position_w"][:, 1:2] - found["right_grip_position_w"][:, 1:2]
        return found | {
            "right_leaf_pos": qpos[:, :1],
            "left_leaf_pos": qpos[:, 1:],
            "right_leaf_vel": qvel[:, :1],
            "left_leaf_vel": qvel[:, 1:],
            "handle_gap": gap.abs(),
        }

    def object_parts(self, signals: Signals) -> list[Tensor]:
        """The leaves."""
        return [signals[f"{side}_leaf_{what}"] for what in ("pos", "vel") for side in ("right", "left")]

    def fitness(self, signals: Signals) -> Tensor:
        """1 while the handles are farther apart than 0.5 m across the door (66 degrees); the episode keeps the
        largest. So does the Eureka paper's code; the paper prints "closer than 0.5 m", which a shut door would be."""
        return (signals["handle_gap"][:, 0] > FITNESS_GAP_M).float()
