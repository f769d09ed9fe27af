"""Sparse reward of quadcopter-command: exp of minus the squared scaled error of what is commanded, and nothing else."""

import torch
from torch import Tensor

VELOCITY_SCALE = 0.4
YAW_SCALE = 0.5


def compute_reward(
    command_velocity: Tensor, command_yaw_rate: Tensor, heading_velocity: Tensor, yaw_rate: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    error = torch.sum(torch.square((heading_velocity - command_velocity) / VELOCITY_SCALE), dim=-1)
    yaw_error = torch.square((yaw_rate - command_yaw_rate) / YAW_SCALE)[:, 0]
    tracking = torch.exp(-(error + yaw_error))
    return tracking, {"tracking_exp": tracking}
