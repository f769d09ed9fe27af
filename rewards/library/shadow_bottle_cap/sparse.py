"""Sparse reward of shadow-bottle-cap: 1 while the cap is off by more than 3 cm, and nothing else."""

from torch import Tensor


def compute_reward(cap_pos: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    off = (cap_pos[:, 0] > 0.03).float()
    return off, {"cap_off": off}
