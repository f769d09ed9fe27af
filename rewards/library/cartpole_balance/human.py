"""Human-written reward of cartpole-balance.

The terms and weights are those of Isaac Lab's manager-based Cartpole (and of IsaacGymEnvs' before it): alive 1, squared
pole angle -1, absolute cart velocity -0.01, absolute pole velocity -0.005. Its penalty of -2 at a failure is left out:
a reward sees no ends of episodes, and a failure costs the alive reward of the time that is lost. A weak pull to the
centre is added, -0.1 times the squared cart position, so that the cart does not drift off the track; dm_control's
balance asks for a centred cart as well.
"""

import torch
from torch import Tensor

ALIVE = 1.0
ANGLE_COST = 1.0
CART_VELOCITY_COST = 0.01
POLE_VELOCITY_COST = 0.005
POSITION_COST = 0.1


def compute_reward(
    pole_angle: Tensor, cart_position: Tensor, cart_velocity: Tensor, pole_angular_velocity: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    alive = ALIVE * torch.ones_like(pole_angle[:, 0])
    angle = -ANGLE_COST * torch.square(pole_angle[:, 0])
    cart_velocity_l1 = -CART_VELOCITY_COST * torch.abs(cart_velocity[:, 0])
    pole_velocity_l1 = -POLE_VELOCITY_COST * torch.abs(pole_angular_velocity[:, 0])
    position = -POSITION_COST * torch.square(cart_position[:, 0])
    total = alive + angle + cart_velocity_l1 + pole_velocity_l1 + position
    return total, {
        "alive_constant": alive,
        "pole_angle_l2": angle,
        "cart_velocity_l1": cart_velocity_l1,
        "pole_velocity_l1": pole_velocity_l1,
        "cart_position_l2": position,
    }
