"""Sparse reward of cartpole-balance: 10 s for each step that is played, whatever the state, and nothing else."""

import torch
from torch import Tensor

SECONDS = 10.0


def compute_reward(pole_angle: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    alive = SECONDS * torch.ones_like(pole_angle[:, 0])
    return alive, {"alive_constant": alive}
