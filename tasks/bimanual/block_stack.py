"""Two Shadow hands over a table with two blocks, one under each: put the left one on the right one, in the middle.

After Bi-DexHands' BlockStack: episodes of 250 steps at 60 Hz (4.17 s), over when a hand's fingertips are 0.75 m in all
from its block. Differs: what `tasks.bimanual.two_hands` says.

Does not model: what a camera would see of the blocks.
Axes: N worlds, 52 actions. Palms down; the right hand's fingers point along +y, the left one's along -y.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from tasks.bimanual.grip import GripTask, grip_signals
from tasks.bimanual.table import TABLE_TOP_M, add_table, over_table
from tasks.bimanual.two_hands import START_POSITION_NOISE_M, action_doc, rest_pose
from tasks.math import constant, quat_axis, quat_rotate, uniform
from tasks.robots.edit import add_sensors
from tasks.robots.shadow_pair import SIDES, Reach
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState

BLOCK_HALF_M, BLOCK_MASS_KG = 0.025, 0.06
BLOCK_FRICTION = (1.0, 0.01, 0.003)
BLOCK_CONTYPE, BLOCK_CONAFFINITY = 1, 1
"""Blocks meet each other, the table and the hands."""
START_FROM_MIDDLE_M = 0.1
LOW_M = (0.0, 0.0, TABLE_TOP_M + BLOCK_HALF_M)
HIGH_M = (0.0, 0.0, TABLE_TOP_M + 3 * BLOCK_HALF_M)
"""Places in the stack: of the right block, and of the left one on it."""
REACH = Reach(slide_m=0.2, turn_rad=0.5)
REST_RAD = rest_pose(knuckle=0.7, curl=0.6, thumb=(0.5, 1.1, 0.0, 0.2, 0.3))

FITNESS_WITHIN_M = 0.07
FITNESS_HEIGHT_WITHIN_M = 0.03


class ShadowBlockStack(GripTask):
    """Stack the blocks."""

    name = "shadow-block-stack"
    instruction = (
        "make two shadow hands stack two blocks as a tower in the middle between them: the right hand pushes its block "
        "there, the left hand puts its own block on top"
    )
    action_doc = action_doc("palm down, fingers curled around the block", REACH)
    right = over_table("right", x_m=0.0, from_middle_m=START_FROM_MIDDLE_M + 0.355, above_m=0.155)
    left = over_table("left", x_m=0.0, from_middle_m=START_FROM_MIDDLE_M + 0.355, above_m=0.155)
    reach = REACH
    right_rest_rad = left_rest_rad = REST_RAD
    episode_length_s = 250.0 / 60.0
    far_m = (0.75, 0.75)
    camera_position_m = (0.65, -0.35, 1.05)
    camera_target_m = (0.0, 0.0, 0.62)
    signal_table = SignalTable(
        [
            *grip_signals("its block, a cube 5 cm wide", "its block"),
            *(
                signal
                for side in SIDES
                for signal in (
                    Signal(
                        f"{side}_block_up_axis_w", 3, "1", "world", "direction", "up of the block as it stood at first"
                    ),
                    Signal(f"{side}_block_linear_velocity_w", 3, "m/s", "world", "linear_velocity", "of the block"),
                    Signal(f"{side}_block_angular_velocity_w", 3, "rad/s", "world", "angular_velocity", "of the block"),
                )
            ),
            Signal(
                "right_goal_offset_w", 3, "m", "world", "position", "from the right block to its place, the lower one"
            ),
            Signal(
                "left_goal_offset_w", 3, "m", "world", "position", "from the left block to its place, the upper one"
            ),
            Signal("right_goal_distance", 1, "m", "world", "distance", "the length of right_goal_offset_w"),
            Signal("left_goal_distance", 1, "m", "world", "distance", "the length of left_goal_offset_w"),
        ]
    )
    fitness_doc = (
        "share of episodes in which both blocks come to their places in the tower, within 7 cm and 3 cm of height"
    )

    def add_objects(self, spec: mujoco.MjSpec, *, visual: bool) -> None:
        """Table and blocks; in videos also their places."""
        add_table(spec)
        box, half = mujoco.mjtGeom.mjGEOM_BOX, [BLOCK_HALF_M] * 3
        looks = (("right", -1.0, LOW_M, [0.80, 0.25, 0.20]), ("left", 1.0, HIGH_M, [0.20, 0.45, 0.80]))
        for side, sign, place, rgb in looks:
            body = spec.worldbody.add_body(name=f"{side}_block", pos=[0.0, sign * START_FROM_MIDDLE_M, LOW_M[2]])
            body.add_freejoint(name=f"{side}_block")
            body.add_geom(
                name=f"{side}_block",
                type=box,
                size=half,
                rgba=[*rgb, 1.0],
                mass=BLOCK_MASS_KG,
                friction=list(BLOCK_FRICTION),
                priority=1,
                condim=4,
                contype=BLOCK_CONTYPE,
                conaffinity=BLOCK_CONAFFINITY,
            )
            if visual:
                spec.worldbody.add_geom(
                    name=f"{side}_goal",
                    type=box,
                    pos=list(place),
                    size=half,
                    rgba=[*rgb, 0.3],
                    contype=0,
                    conaffinity=0,
                )
        bodies = {f"{side}_grip_position": f"{side}_block" for side in SIDES}
        add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_XBODY, bodies)

    def setup(self, sim: Simulation) -> None:
        """The hands' and the places in the tower."""
        super().setup(sim)
        for side, place in (("right", LOW_M), ("left", HIGH_M)):
            sim.constants[f"{side}_goal_position"] = torch.tensor(place, device=sim.device)

    def start_objects(self, n: int, rng: torch.Generator) -> Tensor:
        """One block under each hand."""
        found = []
        for sign in (-1.0, 1.0):
            place = constant((0.0, sign * START_FROM_MIDDLE_M, LOW_M[2]), rng.device).repeat(n, 1)
            place[:, :2] += uniform((n, 2), -START_POSITION_NOISE_M, START_POSITION_NOISE_M, rng)
            found += [place, constant((1.0, 0.0, 0.0, 0.0), rng.device).expand(n, 4)]
        return torch.cat(found, dim=-1)

    def signals(self, sim: SimulationState) -> Signals:
        """The hands', the blocks from qpos and qvel."""
        found = self.grips_now(sim)
        qpos, qvel = self.objects_qpos(sim), self.objects_qvel(sim)
        for place, side in enumerate(SIDES):
            orientation, velocity = qpos[:, 7 * place + 3 : 7 * place + 7], qvel[:, 6 * place : 6 * place + 6]
            offset = sim.constants[f"{side}_goal_position"] - qpos[:, 7 * place : 7 * place + 3]
            found[f"{side}_block_up_axis_w"] = quat_axis(orientation, 2)
            found[f"{side}_block_linear_velocity_w"] = velocity[:, :3]
            # A free joint's angular velocity is in the body's frame.
            found[f"{side}_block_angular_velocity_w"] = quat_rotate(orientation, velocity[:, 3:])
            found[f"{side}_goal_offset_w"] = offset
            found[f"{side}_goal_distance"] = torch.linalg.norm(offset, dim=-1, keepdim=True)
        return found

    def object_parts(self, signals: Signals) -> list[Tensor]:
        """Blocks and what is left to their places."""
        names = ("block_up_axis_w", "block_linear_velocity_w", "block_angular_velocity_w", "goal_offset_w")
        return [signals[f"{side}_{name}"] for side in SIDES for name in names]

    def fitness(self, signals: Signals) -> Tensor:
        """1 while both blocks are within 7 cm of their places and the left one within 3 cm of its height, so that it
        has left the table; the episode keeps the largest. The Eureka paper's code says 50 (0.05 - height left) > 1."""
        near = [signals[f"{side}_goal_distance"][:, 0] < FITNESS_WITHIN_M for side in SIDES]
        high = signals["left_goal_offset_w"][:, 2].abs() < FITNESS_HEIGHT_WITHIN_M
        return (near[0] & near[1] & high).float()
