"""Human-written reward of ant-command.

Tracking as in Isaac Lab's flat velocity tasks: 1.0 exp(-error^2 / 0.25) of the horizontal velocity and 0.5 of the yaw rate,
beside which a wider kernel of variance 4 and equal weight: commands there end at 1 m/s, here at 2 m/s, where the narrow
one has no slope for a beginner. The other terms and weights are those of IsaacGymEnvs' and Isaac Lab's Ant: up 0.1 above
0.93, alive 0.5, action cost 0.005, energy cost 0.05, joint limits 0.1 beyond 99 % of the range. Falling costs no extra
term: the episode ends and the alive reward with it.
"""

import torch
from torch import Tensor

VELOCITY_WEIGHT = 1.0
YAW_WEIGHT = 0.5
NARROW = 0.25
WIDE = 4.0
UP_WEIGHT = 0.1
ALIVE = 0.5
ACTION_COST = 0.005
ENERGY_COST = 0.05
LIMIT_COST = 0.1
JOINT_VEL_SCALE = 0.2


def compute_reward(
    command_velocity: Tensor,
    command_yaw_rate: Tensor,
    heading_velocity: Tensor,
    yaw_rate: Tensor,
    up_axis_w: Tensor,
    joint_pos_fraction: Tensor,
    joint_vel: Tensor,
    actions: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    error = torch.sum(torch.square(heading_velocity - command_velocity), dim=-1)
    yaw_error = torch.square(yaw_rate - command_yaw_rate)[:, 0]
    velocity_near = VELOCITY_WEIGHT * torch.exp(-error / NARROW)
    velocity_far = VELOCITY_WEIGHT * torch.exp(-error / WIDE)
    yaw_near = YAW_WEIGHT * torch.exp(-yaw_error / NARROW)
    yaw_far = YAW_WEIGHT * torch.exp(-yaw_error / WIDE)
    upright = UP_WEIGHT * (up_axis_w[:, 2] > 0.93).float()
    alive = ALIVE * torch.ones_like(error)
    action_l2 = -ACTION_COST * torch.sum(actions * actions, dim=-1)
    energy = -ENERGY_COST * torch.sum(torch.abs(actions * joint_vel * JOINT_VEL_SCALE), dim=-1)
    joint_limits = -LIMIT_COST * torch.sum((torch.abs(joint_pos_fraction) > 0.99).float(), dim=-1)
    tracking = velocity_near + velocity_far + yaw_near + yaw_far
    total = tracking + upright + alive + action_l2 + energy + joint_limits
    return total, {
        "velocity_exp": velocity_near,
        "velocity_wide_exp": velocity_far,
        "yaw_rate_exp": yaw_near,
        "yaw_rate_wide_exp": yaw_far,
        "upright": upright,
        "alive": alive,
        "action_l2": action_l2,
        "energy": energy,
        "joint_limits": joint_limits,
    }
