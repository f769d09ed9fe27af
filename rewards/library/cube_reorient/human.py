"""Human-written reward of allegro-reorient and shadow-reorient.

The terms and weights are those of IsaacGymEnvs' AllegroHand and ShadowHand and of Isaac Lab's in-hand manipulation:
distance from where the cube is held -10 per metre, closeness to the goal 1 / (angle + 0.1), action cost 0.0002, and 250
for a goal reached. A fall costs 50, as in Isaac Lab's Shadow hand of the OpenAI kind: without it dropping the cube would
end a reward that is below zero while the cube is far from where it is held.
"""

import torch
from torch import Tensor

DISTANCE_COST = 10.0
CLOSENESS_SOFTENING_RAD = 0.1
ACTION_COST = 0.0002
GOAL_BONUS = 250.0
FALL_COST = 50.0
FALLEN_BELOW_M = 0.45
REACHED_BELOW_RAD = 0.1


def compute_reward(
    hold_distance: Tensor, rotation_distance: Tensor, object_position_w: Tensor, actions: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    angle = rotation_distance[:, 0]
    held = -DISTANCE_COST * hold_distance[:, 0]
    close = 1.0 / (angle + CLOSENESS_SOFTENING_RAD)
    action_l2 = -ACTION_COST * torch.sum(torch.square(actions), dim=-1)
    reached = GOAL_BONUS * (angle < REACHED_BELOW_RAD).float()
    fallen = -FALL_COST * (object_position_w[:, 2] < FALLEN_BELOW_M).float()
    return held + close + action_l2 + reached + fallen, {
        "hold_distance_l1": held,
        "rotation_inverse": close,
        "action_l2": action_l2,
        "goal_bonus": reached,
        "fall_cost": fallen,
    }
