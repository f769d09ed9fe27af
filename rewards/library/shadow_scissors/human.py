"""Human-written reward of shadow-scissors.

Terms are those of Bi-DexHands' Scissors: 2 - the sums of the fingertips' distances from the handles, right and left (m),
+ 5 x the opening (rad) while both sums are below 0.7 m. Its joint starts near -0.59, which it adds; ours starts at 0.
"""

from torch import Tensor

OFFSET = 2.0
NEAR_BELOW_M = 0.7
OPENING_SCALE = 5.0


def compute_reward(
    right_finger_distance: Tensor, left_finger_distance: Tensor, opening_pos: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    right, left = right_finger_distance[:, 0], left_finger_distance[:, 0]
    near = ((right < NEAR_BELOW_M) & (left < NEAR_BELOW_M)).float()
    reaching = OFFSET - right - left
    opening = OPENING_SCALE * opening_pos[:, 0] * near
    return reaching + opening, {"finger_distance_l1": reaching, "opening": opening}
