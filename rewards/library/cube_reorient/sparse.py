"""Sparse reward of allegro-reorient and shadow-reorient: 1 in a step that reaches the goal, and nothing else."""

from torch import Tensor


def compute_reward(rotation_distance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    reached = (rotation_distance[:, 0] < 0.1).float()
    return reached, {"goal_reached": reached}
