"""Sparse reward of humanoid-run: the speed of the torso along world +x, m/s, and nothing else."""

import torch
from torch import Tensor


def compute_reward(torso_linear_velocity_w: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    forward_velocity = torso_linear_velocity_w[:, 0]
    return forward_velocity, {"forward_velocity": forward_velocity}
