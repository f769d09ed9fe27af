"""Two Shadow hands over a table on which a pair of scissors lies, one hand at each handle: open them.

After Bi-DexHands' Scissors: episodes of 150 steps at 60 Hz (2.5 s), over when a hand's fingertips are 1.75 m in all
from its handle. Differs: what `tasks.bimanual.two_hands` says; the scissors are built here of two levers, their
handles posts that fingers can hook, and their angle counts from shut.

Does not model: blades that touch each other.
Axes: N worlds, 52 actions. Palms down; the right hand's fingers point along +y, the left one's along -y. Blades point
along +x.
"""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from tasks.bimanual.grip import GripTask, grip_signals
from tasks.bimanual.table import TABLE_TOP_M, add_table, over_table
from tasks.bimanual.two_hands import START_POSITION_NOISE_M, action_doc, rest_pose
from tasks.dexterous.in_hand import solid
from tasks.math import constant, quat_axis, quat_rotate, uniform
from tasks.robots.edit import add_sensors
from tasks.robots.shadow_pair import Reach
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import SimulationState

HANDLE_M = (-0.09, 0.045)
"""Of a handle from the pivot when the scissors are shut: along the blades, and to the side."""
BLADE_LENGTH_M, LEVER_HALF_WIDTH_M, LEVER_HALF_THICKNESS_M = 0.10, 0.006, 0.003
POST_RADIUS_M, POST_HALF_HEIGHT_M = 0.011, 0.022
LEVER_MASS_KG, POST_MASS_KG = 0.03, 0.02
LEVER_FRICTION = (0.8, 0.01, 0.003)
PIVOT_DAMPING_N_M_S, PIVOT_FRICTION_N_M = 0.005, 0.01
MAX_OPEN_RAD = 0.9
START_M = (0.04, 0.0)
"""Of the pivot on the table: the handles are under the hands' middles."""
REACH = Reach(slide_m=0.2, turn_rad=0.6)
REST_RAD = rest_pose(knuckle=0.5, curl=0.5, thumb=(0.3, 0.8, 0.0, 0.2, 0.3))

FITNESS_OPEN_RAD = 0.29


class ShadowScissors(GripTask):
    """Open the scissors."""

    name = "shadow-scissors"
    instruction = (
        "make two shadow hands open a pair of scissors that lies shut on a table, one hand at each of its two handles"
    )
    action_doc = action_doc("palm down, fingers a little curled", REACH)
    right = over_table("right", x_m=HANDLE_M[0] + START_M[0], from_middle_m=0.46, above_m=0.14)
    left = over_table("left", x_m=HANDLE_M[0] + START_M[0], from_middle_m=0.46, above_m=0.14)
    reach = REACH
    right_rest_rad = left_rest_rad = REST_RAD
    episode_length_s = 150.0 / 60.0
    far_m = (1.75, 1.75)
    camera_position_m = (0.55, -0.35, 1.15)
    camera_target_m = (-0.03, 0.0, 0.62)
    signal_table = SignalTable(
        [
            *grip_signals("its handle, a vertical post", "the other handle"),
            Signal("scissors_position_w", 3, "m", "world", "position", "the pivot"),
            Signal(
                "scissors_forward_axis_w", 3, "1", "world", "direction", "along the blade of the right hand's lever"
            ),
            Signal("scissors_linear_velocity_w", 3, "m/s", "world", "linear_velocity", "of the pivot"),
            Signal("scissors_angular_velocity_w", 3, "rad/s", "world", "angular_velocity", "of the right hand's lever"),
            Signal("opening_pos", 1, "rad", "joint", "joint_pos", "how far the scissors are open; 0 shut, 0.9 at most"),
            Signal("opening_vel", 1, "rad/s", "joint", "joint_vel", "positive while they open"),
        ]
    )
    fitness_doc = "share of episodes in which the scissors are opened by more than 0.29 rad"

    def add_objects(self, spec: mujoco.MjSpec, *, visual: bool) -> None:
        """A table; a lever that lies on it freely, and one that turns about the first one's pivot."""
        add_table(spec)
        height = TABLE_TOP_M + LEVER_HALF_THICKNESS_M
        first = spec.worldbody.add_body(name="scissors", pos=[*START_M, height])
        first.add_freejoint(name="scissors")
        second = first.add_body(name="second_lever")
        second.add_joint(
            name="opening",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0.0, 0.0, -1.0],
            range=[0.0, MAX_OPEN_RAD],
            damping=[PIVOT_DAMPING_N_M_S, 0.0, 0.0],
            frictionloss=PIVOT_FRICTION_N_M,
        )
        for body, side, sign, rgba in (
            (first, "right", -1.0, (0.80, 0.25, 0.20, 1.0)),
            (second, "left", 1.0, (0.20, 0.45, 0.80, 1.0)),
        ):
            self._add_lever(body, side, sign, rgba)
        sites = {f"{side}_grip_position": f"{side}_handle" for side in ("right", "left")}
        add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_SITE, sites)

    @staticmethod
    def _add_lever(body: mujoco.MjsBody, side: str, sign: float, rgba: tuple[float, ...]) -> None:
        """A blade along +x, an arm back to the handle, and the handle's post."""
        box = mujoco.mjtGeom.mjGEOM_BOX
        x, y = HANDLE_M[0], sign * HANDLE_M[1]
        lever = solid(body, ghost=False, mass_kg=LEVER_MASS_KG, friction=LEVER_FRICTION)
        half = BLADE_LENGTH_M / 2
        steel = [0.75, 0.77, 0.80, 1.0]
        size = [half, LEVER_HALF_WIDTH_M, LEVER_HALF_THICKNESS_M]
        body.add_geom(name=f"{side}_blade", type=box, pos=[half, 0.0, 0.0], size=size, rgba=steel, **lever)
        angle, length = math.atan2(y, x), math.hypot(x, y)
        turn = [math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]
        size = [length / 2, LEVER_HALF_WIDTH_M, LEVER_HALF_THICKNESS_M]
        body.add_geom(
            name=f"{side}_arm", type=box, pos=[x / 2, y / 2, 0.0], quat=turn, size=size, rgba=list(rgba), **lever
        )
        post = solid(body, ghost=False, mass_kg=POST_MASS_KG, friction=LEVER_FRICTION)
        # Its lower end is the levers' lower side, so that it stands on the table as they lie on it.
        above = POST_HALF_HEIGHT_M - LEVER_HALF_THICKNESS_M
        body.add_geom(
            name=f"{side}_post",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            pos=[x, y, above],
            size=[POST_RADIUS_M, POST_HALF_HEIGHT_M, 0.0],
            rgba=list(rgba),
            **post,
        )
        body.add_site(name=f"{side}_handle", pos=[x, y, above], size=[0.001] * 3, group=5)

    def start_objects(self, n: int, rng: torch.Generator) -> Tensor:
        """Lying on the table, shut."""
        place = constant((*START_M, TABLE_TOP_M + LEVER_HALF_THICKNESS_M), rng.device).repeat(n, 1)
        place[:, :2] += uniform((n, 2), -START_POSITION_NOISE_M, START_POSITION_NOISE_M, rng)
        ahead = constant((1.0, 0.0, 0.0, 0.0), rng.device).expand(n, 4)
        return torch.cat([place, ahead, torch.zeros(n, 1)], dim=-1)

    def signals(self, sim: SimulationState) -> Signals:
        """The hands', the handles from sensors, the scissors from qpos and qvel."""
        qpos, qvel = self.objects_qpos(sim), self.objects_qvel(sim)
        orientation = qpos[:, 3:7]
        return self.grips_now(sim) | {
            "scissors_position_w": qpos[:, :3],
            "scissors_forward_axis_w": quat_axis(orientation, 0),
            "scissors_linear_velocity_w": qvel[:, :3],
            # A free joint's angular velocity is in the body's frame.
            "scissors_angular_velocity_w": quat_rotate(orientation, qvel[:, 3:6]),
            "opening_pos": qpos[:, 7:],
            "opening_vel": qvel[:, 6:],
        }

    def object_parts(self, signals: Signals) -> list[Tensor]:
        """The scissors."""
        names = ("position_w", "forward_axis_w", "linear_velocity_w", "angular_velocity_w")
        return [*(signals[f"scissors_{name}"] for name in names), signals["opening_pos"], signals["opening_vel"]]

    def fitness(self, signals: Signals) -> Tensor:
        """1 while the scissors are open by more than 0.29 rad; the episode keeps the largest. In the Eureka paper's
        code the joint is to pass -0.3 rad, where it starts near -0.59."""
        return (signals["opening_pos"][:, 0] > FITNESS_OPEN_RAD).float()
