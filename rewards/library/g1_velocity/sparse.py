"""Sparse reward of g1-velocity: minus the squared error of the commanded velocities, its fitness."""

import torch
from torch import Tensor


def compute_reward(
    command_velocity_b: Tensor,
    command_yaw_rate: Tensor,
    base_linear_velocity_b: Tensor,
    base_angular_velocity_b: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    error = torch.sum(torch.square(base_linear_velocity_b[:, :2] - command_velocity_b), dim=-1)
    yaw_error = torch.square(base_angular_velocity_b[:, 2] - command_yaw_rate[:, 0])
    total = -(error + yaw_error)
    return total, {"linear_velocity_l2": -error, "yaw_rate_l2": -yaw_error}
