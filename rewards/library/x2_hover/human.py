"""Human-written reward of x2-hover.

IsaacGymEnvs' Quadcopter: 1 / (1 + distance^2) to the target, and the same again times how upright, 1 / (1 + tilt^2) with
tilt = 1 - cosine, and how free of spin, 1 / (1 + yaw rate^2), the quadcopter is; so both matter only near the target.
"""

import torch
from torch import Tensor


def compute_reward(
    target_distance: Tensor, up_axis_w: Tensor, angular_velocity_b: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    near = 1.0 / (1.0 + torch.square(target_distance[:, 0]))
    upright = 1.0 / (1.0 + torch.square(1.0 - up_axis_w[:, 2]))
    steady = 1.0 / (1.0 + torch.square(angular_velocity_b[:, 2]))
    total = near + near * (upright + steady)
    return total, {
        "target_distance_inverse": near,
        "upright_near_inverse": near * upright,
        "yaw_rate_near_inverse": near * steady,
    }
