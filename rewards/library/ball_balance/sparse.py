"""Sparse reward of ball-balance: 10 s for each step that is played, whatever the state, and nothing else."""

import torch
from torch import Tensor

SECONDS = 10.0


def compute_reward(ball_distance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    alive = SECONDS * torch.ones_like(ball_distance[:, 0])
    return alive, {"alive_constant": alive}
