"""Human-written reward of cartpole-swingup.

The smooth reward of dm_control's cartpole swing-up: the product of four factors, each 1 at best. Upright is linear in
the cosine of the pole's angle; centred and slow are bell curves that have fallen to 0.1 at 2 m and at 5 rad/s, of which
half is always granted; small actions lift the product by up to a quarter.
"""

import math

import torch
from torch import Tensor

CENTRE_MARGIN_M = 2.0
VELOCITY_MARGIN_RAD_S = 5.0
BELL = 2.0 * math.log(10.0)


def bell_curve(x: Tensor, margin: float) -> Tensor:
    return torch.exp(-0.5 * BELL * torch.square(x / margin))


def compute_reward(
    pole_direction_w: Tensor, cart_position: Tensor, pole_angular_velocity: Tensor, actions: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    upright = 0.5 * (1.0 + pole_direction_w[:, 2])
    centred = 0.5 * (1.0 + bell_curve(cart_position[:, 0], CENTRE_MARGIN_M))
    slow = 0.5 * (1.0 + bell_curve(pole_angular_velocity[:, 0], VELOCITY_MARGIN_RAD_S))
    small_action = 0.2 * (4.0 + torch.clamp(1.0 - torch.square(actions[:, 0]), min=0.0))
    total = upright * centred * slow * small_action
    return total, {
        "upright_linear": upright,
        "centred_gaussian": centred,
        "pole_velocity_gaussian": slow,
        "action_l2": small_action,
    }
