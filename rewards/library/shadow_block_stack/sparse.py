"""Sparse reward of shadow-block-stack: 1 while both blocks are within 7 cm of their places and the left one within 3 cm of
its height, and nothing else."""

import torch
from torch import Tensor


def compute_reward(
    right_goal_distance: Tensor, left_goal_distance: Tensor, left_goal_offset_w: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    near = (right_goal_distance[:, 0] < 0.07) & (left_goal_distance[:, 0] < 0.07)
    stacked = (near & (torch.abs(left_goal_offset_w[:, 2]) < 0.03)).float()
    return stacked, {"stacked": stacked}
