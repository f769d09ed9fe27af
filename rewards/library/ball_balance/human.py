"""Human-written reward of ball-balance.

The product of IsaacGymEnvs' BallBalance: 1 / (1 + distance of the ball from the middle) times 1 / (1 + its speed).
Distance and speed are taken along the table, where that task takes them in space.
"""

import torch
from torch import Tensor


def compute_reward(ball_distance: Tensor, ball_velocity_t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    speed = torch.linalg.norm(ball_velocity_t, dim=-1)
    near = 1.0 / (1.0 + ball_distance[:, 0])
    slow = 1.0 / (1.0 + speed)
    return near * slow, {"ball_distance_inverse": near, "ball_speed_inverse": slow}
