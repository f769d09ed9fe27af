"""What tasks share in which one hand throws a cube and the other one catches it: the cube, its goal, signals.

After Bi-DexHands' HandOver and CatchUnderarm. Differs: the cube of `tasks.dexterous.shadow_reorient` instead of an
egg of 6 x 6 x 8 cm; the goal is where the left hand would hold it.

It does not know where the hands are: a task's file says.
Axes: N worlds. The right hand has the cube at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tasks.bimanual.two_hands import START_POSITION_NOISE_M, TwoHandsTask, hand_signals
from tasks.dexterous.in_hand import add_cube, random_rotation, solid
from tasks.dexterous.shadow_grasp import FINGER_REST_RAD, LITTLE_PALM_REST_RAD, THUMB_REST_RAD, WRIST_REST_RAD
from tasks.math import constant, quat_axis, quat_conjugate, quat_multiply, quat_rotate, quat_to_rotation_vector, uniform
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState

CUBE_HALF_M = 0.0325
CUBE_MASS_KG = 0.1
CUBE_FRICTION = (0.5, 0.01, 0.003)
"""Sliding, torsional, rolling: those of the Shadow hand's cube in `tasks.dexterous.shadow_reorient`."""
REST_RAD = (*WRIST_REST_RAD, *THUMB_REST_RAD, *FINGER_REST_RAD * 3, LITTLE_PALM_REST_RAD, *FINGER_REST_RAD)
"""Holds a cube on a palm that is up: that of `tasks.dexterous.shadow_grasp`."""
START_ABOVE_M = 0.055
"""How far above where it lies in the hand the cube starts: turned anyhow it is clear of palm and fingers."""
FITNESS_WITHIN_M = 0.03


def throw_table(*, moving: bool) -> SignalTable:
    """The signals of a throw; `moving` where the hands' bases move."""
    return SignalTable(
        [
            *hand_signals(moving=moving),
            Signal("object_position_w", 3, "m", "world", "position", "centre of the cube, 6.5 cm wide"),
            Signal("object_orientation_w", 4, "1", "world", "orientation", "of the cube, unit quaternion, w first"),
            Signal("object_linear_velocity_w", 3, "m/s", "world", "linear_velocity", "of the cube"),
            Signal("object_angular_velocity_w", 3, "rad/s", "world", "angular_velocity", "of the cube"),
            Signal(
                "goal_position_w", 3, "m", "world", "command", "where the cube's centre should come, on the left palm"
            ),
            Signal("goal_orientation_w", 4, "1", "world", "command", "orientation it should have there"),
            Signal("goal_offset_w", 3, "m", "world", "position", "from the cube's centre to goal_position_w"),
            Signal("goal_distance", 1, "m", "world", "distance", "the length of goal_offset_w"),
            Signal("rotation_to_goal_w", 3, "rad", "world", "position", "axis times angle of the rotation left"),
            Signal("rotation_distance", 1, "rad", "-", "distance", "the angle of that rotation, 0 to pi"),
        ]
    )


class ThrowTask(TwoHandsTask):
    """Base class: a subclass places the hands and says where the cube starts and where it should come."""

    start_position_m: ClassVar[tuple[float, float, float]]
    """Centre of the cube where it lies on the right palm."""
    goal_position_m: ClassVar[tuple[float, float, float]]
    """Where it should come."""
    min_height_m: ClassVar[float]
    """Below this it is lost."""
    right_rest_rad = left_rest_rad = REST_RAD
    episode_length_s = 75.0 / 60.0
    fitness_doc = "share of episodes in which the cube's centre comes within 3 cm of the goal"

    def add_objects(self, spec: mujoco.MjSpec, *, visual: bool) -> None:
        """The cube; in videos also the goal."""
        for name in ("object", "goal") if visual else ("object",):
            body = spec.worldbody.add_body(name=name, pos=list(self.start_position_m))
            body.add_freejoint(name=name)
            ghost = name == "goal"
            material = solid(body, ghost=ghost, mass_kg=CUBE_MASS_KG, friction=CUBE_FRICTION)
            add_cube(body, CUBE_HALF_M, ghost=ghost, visual=visual, material=material)

    def visual_qpos(self, qpos: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """The same positions, then the goal's."""
        place = torch.tensor(self.goal_position_m).to(qpos).expand(len(qpos), 3)
        return torch.cat([qpos, place, memory["goal_orientation_w"]], dim=-1)

    def setup(self, sim: Simulation) -> None:
        """The hands' and the goal."""
        super().setup(sim)
        sim.constants["goal_position_w"] = torch.tensor(self.goal_position_m, device=sim.device)
        unit = torch.tensor([1.0, 0.0, 0.0, 0.0], device=sim.device)
        sim.memory["goal_orientation_w"] = unit.repeat(sim.num_envs, 1)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """As every task of two hands, with a new goal orientation."""
        super().reset(sim, env_ids, rng)
        goals = random_rotation(len(env_ids), rng)
        sim.memory["goal_orientation_w"] = sim.memory["goal_orientation_w"].index_copy(0, env_ids, goals)

    def start_objects(self, n: int, rng: torch.Generator) -> Tensor:
        """Just above the right palm, turned anyhow."""
        shift = uniform((n, 3), -START_POSITION_NOISE_M, START_POSITION_NOISE_M, rng)
        shift[:, 2] += START_ABOVE_M
        return torch.cat([constant(tuple(self.start_position_m), rng.device) + shift, random_rotation(n, rng)], dim=-1)

    def signals(self, sim: SimulationState) -> Signals:
        """The hands', the cube from qpos and qvel, the goal from memory."""
        qpos, qvel = self.objects_qpos(sim), self.objects_qvel(sim)
        position, orientation = qpos[:, :3], qpos[:, 3:]
        goal, turn = sim.constants["goal_position_w"].expand(len(qpos), 3), sim.memory["goal_orientation_w"]
        left = quat_to_rotation_vector(quat_multiply(turn, quat_conjugate(orientation)))
        return self.hands_now(sim) | {
            "object_position_w": position,
            "object_orientation_w": orientation,
            "object_linear_velocity_w": qvel[:, :3],
            # A free joint's angular velocity is in the body's frame.
            "object_angular_velocity_w": quat_rotate(orientation, qvel[:, 3:]),
            "goal_position_w": goal,
            "goal_orientation_w": turn,
            "goal_offset_w": goal - position,
            "goal_distance": torch.linalg.norm(goal - position, dim=-1, keepdim=True),
            "rotation_to_goal_w": left,
            "rotation_distance": torch.linalg.norm(left, dim=-1, keepdim=True),
        }

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 196, or 220 where the bases move): both hands from the cube, the cube, the way to
        the goal."""
        centre, orientation = signals["object_position_w"], signals["object_orientation_w"]
        parts = [
            *self.hand_parts(signals, "right", centre),
            *self.hand_parts(signals, "left", centre),
            signals["goal_offset_w"],
            quat_axis(orientation, 0),
            quat_axis(orientation, 1),
            signals["object_linear_velocity_w"],
            signals["object_angular_velocity_w"],
            signals["rotation_to_goal_w"],
        ]
        return torch.cat(parts, dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """The cube is lost."""
        return {"dropped": signals["object_position_w"][:, 2] < self.min_height_m}

    def fitness(self, signals: Signals) -> Tensor:
        """1 in a step in which the cube's centre is within 3 cm of the goal, as the Eureka paper measures it; the
        episode keeps the largest. Bi-DexHands itself counts a distance of exactly 0, which never is."""
        return (signals["goal_distance"][:, 0] < FITNESS_WITHIN_M).float()
