"""Sparse reward of x2-hover: minus the distance to the target, m, and nothing else."""

from torch import Tensor


def compute_reward(target_distance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    distance = -target_distance[:, 0]
    return distance, {"target_distance_l1": distance}
