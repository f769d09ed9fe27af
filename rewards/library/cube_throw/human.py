"""Human-written reward of shadow-over and shadow-catch-underarm.

The one term is that of Bi-DexHands' HandOver and CatchUnderarm: exp(-0.2 (50 x distance from the goal in m + rotation
left in rad)). Left out: the bonus of 250 for a distance of 0, which never occurs there, and the fall's cost, which is 0.
"""

import torch
from torch import Tensor

SHARPNESS = 0.2
DISTANCE_SCALE = 50.0


def compute_reward(goal_distance: Tensor, rotation_distance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    near = torch.exp(-SHARPNESS * (DISTANCE_SCALE * goal_distance[:, 0] + rotation_distance[:, 0]))
    return near, {"goal_exp": near}
