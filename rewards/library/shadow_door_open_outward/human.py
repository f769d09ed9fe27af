"""Human-written reward of shadow-door-open-outward.

Terms are those of Bi-DexHands' DoorOpenOutward: 2 - the sums of the fingertips' distances from the handles, right and
left (m), + 2 x the handles' gap across the door (m) while both sums are below 0.5 m.
"""

from torch import Tensor

OFFSET = 2.0
NEAR_BELOW_M = 0.5
GAP_SCALE = 2.0


def compute_reward(
    right_finger_distance: Tensor, left_finger_distance: Tensor, handle_gap: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    right, left = right_finger_distance[:, 0], left_finger_distance[:, 0]
    near = ((right < NEAR_BELOW_M) & (left < NEAR_BELOW_M)).float()
    reaching = OFFSET - right - left
    opening = GAP_SCALE * handle_gap[:, 0] * near
    return reaching + opening, {"finger_distance_l1": reaching, "handle_gap": opening}
