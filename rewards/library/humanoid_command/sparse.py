"""Sparse reward of humanoid-command: exp of minus the squared error of what is commanded, over 0.5 m/s and
0.5 rad/s, and nothing else: the fitness."""

import torch
from torch import Tensor

SCALE = 0.5


def compute_reward(
    command_velocity: Tensor, command_yaw_rate: Tensor, heading_velocity: Tensor, yaw_rate: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    error = torch.sum(torch.square((heading_velocity - command_velocity) / SCALE), dim=-1)
    yaw_error = torch.square((yaw_rate - command_yaw_rate) / SCALE)[:, 0]
    tracking = torch.exp(-(error + yaw_error))
    return tracking, {"tracking_exp": tracking}
