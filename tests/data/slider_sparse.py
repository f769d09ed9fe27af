"""The fitness of the task as its reward."""

import torch
from torch import Tensor


def compute_reward(mass_position: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    distance = -torch.abs(mass_position[:, 0])
    return distance, {"distance": distance}
