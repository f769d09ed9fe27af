"""Sparse reward of shadow-door-open-outward: 1 while the handles are farther apart than 0.5 m, and nothing else."""

from torch import Tensor


def compute_reward(handle_gap: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    opened = (handle_gap[:, 0] > 0.5).float()
    return opened, {"open": opened}
