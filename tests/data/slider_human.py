"""Quadratic cost on position and velocity, as in linear-quadratic regulation (Anderson and Moore, 1990)."""

import torch
from torch import Tensor


def compute_reward(mass_position: Tensor, mass_velocity: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    position_l2 = 1.0 - torch.square(mass_position[:, 0])
    velocity_l2 = -0.1 * torch.square(mass_velocity[:, 0])
    return position_l2 + velocity_l2, {"position_l2": position_l2, "velocity_l2": velocity_l2}
