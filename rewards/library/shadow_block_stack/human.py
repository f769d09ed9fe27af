"""Human-written reward of shadow-block-stack.

Terms are those of Bi-DexHands' BlockStack: 1.5 - the sums of the fingertips' distances from the blocks, right and left
(m), + 2 x (0.24 - what both blocks have left to their places, m) while both sums are below 0.5 m, + 50 x (0.05 - what the
left block has left in height, m) while both blocks are within 7 cm of their places.
"""

import torch
from torch import Tensor

OFFSET = 1.5
NEAR_BELOW_M = 0.5
PLACE_SCALE = 2.0
PLACE_OFFSET_M = 0.24
STACK_SCALE = 50.0
STACK_OFFSET_M = 0.05
PLACED_BELOW_M = 0.07


def compute_reward(
    right_finger_distance: Tensor,
    left_finger_distance: Tensor,
    right_goal_distance: Tensor,
    left_goal_distance: Tensor,
    left_goal_offset_w: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    right, left = right_finger_distance[:, 0], left_finger_distance[:, 0]
    low, high = right_goal_distance[:, 0], left_goal_distance[:, 0]
    near = ((right < NEAR_BELOW_M) & (left < NEAR_BELOW_M)).float()
    placed = ((low < PLACED_BELOW_M) & (high < PLACED_BELOW_M)).float()
    reaching = OFFSET - right - left
    placing = PLACE_SCALE * (PLACE_OFFSET_M - low - high) * near
    stacking = STACK_SCALE * (STACK_OFFSET_M - torch.abs(left_goal_offset_w[:, 2])) * placed
    return reaching + placing + stacking, {
        "finger_distance_l1": reaching,
        "goal_distance_l1": placing,
        "stack_height_l1": stacking,
    }
