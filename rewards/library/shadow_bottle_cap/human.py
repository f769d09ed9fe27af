"""Human-written reward of shadow-bottle-cap.

Terms are those of Bi-DexHands' BottleCap: 2 - the sum of the right fingertips' distances from the cap (m) - the left
palm's distance from the bottle (m) + 30 x how far the cap is off (m) while that sum is at most 0.3 m.
"""

from torch import Tensor

OFFSET = 2.0
NEAR_BELOW_M = 0.3
LIFT_SCALE = 30.0


def compute_reward(
    right_finger_distance: Tensor, left_palm_distance: Tensor, cap_pos: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    right, left = right_finger_distance[:, 0], left_palm_distance[:, 0]
    reaching = OFFSET - right - left
    lift = LIFT_SCALE * cap_pos[:, 0] * (right <= NEAR_BELOW_M).float()
    return reaching + lift, {"distance_l1": reaching, "cap_lift": lift}
