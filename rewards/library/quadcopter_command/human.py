"""Human-written reward of quadcopter-command.

Tracking as in Isaac Lab's velocity tasks: exp(-error^2 / 0.25) of the velocity and half of it for the yaw rate, each
beside a wider kernel of the same weight, so that a beginner finds a slope; and a small cost on spin about the other
axes, which the picture of a camera would suffer from.
"""

import torch
from torch import Tensor

NARROW = 0.25
WIDE = 2.0
YAW_WEIGHT = 0.5
TILT_RATE_COST = 0.02
ACTION_COST = 0.01


def compute_reward(
    command_velocity: Tensor,
    command_yaw_rate: Tensor,
    heading_velocity: Tensor,
    yaw_rate: Tensor,
    up_axis_w: Tensor,
    angular_velocity_b: Tensor,
    actions: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    error = torch.sum(torch.square(heading_velocity - command_velocity), dim=-1)
    yaw_error = torch.square(yaw_rate - command_yaw_rate)[:, 0]
    velocity_near = torch.exp(-error / NARROW)
    velocity_far = torch.exp(-error / WIDE)
    yaw_near = YAW_WEIGHT * torch.exp(-yaw_error / NARROW)
    yaw_far = YAW_WEIGHT * torch.exp(-yaw_error / WIDE)
    upright = 0.5 * up_axis_w[:, 2]
    tilt_rate = -TILT_RATE_COST * torch.sum(torch.square(angular_velocity_b[:, :2]), dim=-1)
    action_l2 = -ACTION_COST * torch.sum(torch.square(actions), dim=-1)
    total = velocity_near + velocity_far + yaw_near + yaw_far + upright + tilt_rate + action_l2
    return total, {
        "velocity_exp": velocity_near,
        "velocity_wide_exp": velocity_far,
        "yaw_rate_exp": yaw_near,
        "yaw_rate_wide_exp": yaw_far,
        "upright": upright,
        "tilt_rate_l2": tilt_rate,
        "action_l2": action_l2,
    }
