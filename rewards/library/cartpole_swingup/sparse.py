"""Sparse reward of cartpole-swingup: 1 while the pole is within 18 degrees of upright and the cart within 0.5 m of
the centre, else 0. The test is that of dm_control's sparse cartpole with wider bounds."""

from torch import Tensor

UPRIGHT_COS = 0.95
CENTRED_M = 0.5


def compute_reward(pole_direction_w: Tensor, cart_distance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    upright = (pole_direction_w[:, 2] > UPRIGHT_COS).float()
    centred = (cart_distance[:, 0] < CENTRED_M).float()
    total = upright * centred
    return total, {"upright_and_centred_step": total}
