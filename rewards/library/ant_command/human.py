"""Human-written reward of ant-command.

Progress is that of IsaacGymEnvs' and Isaac Lab's Ant, weight 1 on the speed, for a command: the speed along the commanded
velocity, up to what is commanded, and the yaw rate to the commanded side likewise. Beside it tracking as in Isaac Lab's
flat velocity tasks, 1.0 exp(-error^2 / 0.25) of the horizontal velocity, and as much of the yaw rate (there half); by itself
it has no slope for a beginner who is told to run at 2 m/s, who learns to stand (measured). Change of actions -0.05, there
-0.01 on actions of half the reach: without it the policy turns by the noise of its exploration, which frees its feet, and
stands without noise (measured). The other terms and weights are the Ant's: up 0.1 above 0.93, alive 0.5, action cost
0.005, energy cost 0.05, joint limits 0.1 beyond 99 % of the range. Falling costs no extra term: the episode ends and the
alive reward with it.
"""

import torch
from torch import Tensor

PROGRESS_WEIGHT = 1.0
VELOCITY_TRACKING = 1.0
YAW_TRACKING = 1.0
TRACKING_VARIANCE = 0.25
UP_WEIGHT = 0.1
ALIVE = 0.5
ACTION_COST = 0.005
ACTION_RATE_COST = 0.05
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
    previous_actions: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    speed = torch.linalg.norm(command_velocity, dim=-1)
    along = torch.sum(heading_velocity * command_velocity, dim=-1) / torch.clamp(speed, min=1e-3)
    rate = torch.abs(command_yaw_rate)[:, 0]
    turned = (yaw_rate * torch.sign(command_yaw_rate))[:, 0]
    progress = PROGRESS_WEIGHT * torch.minimum(along, speed)
    yaw_progress = PROGRESS_WEIGHT * torch.minimum(turned, rate)
    error = torch.sum(torch.square(heading_velocity - command_velocity), dim=-1)
    yaw_error = torch.square(yaw_rate - command_yaw_rate)[:, 0]
    tracking = VELOCITY_TRACKING * torch.exp(-error / TRACKING_VARIANCE)
    yaw_tracking = YAW_TRACKING * torch.exp(-yaw_error / TRACKING_VARIANCE)
    upright = UP_WEIGHT * (up_axis_w[:, 2] > 0.93).float()
    alive = ALIVE * torch.ones_like(error)
    action_l2 = -ACTION_COST * torch.sum(actions * actions, dim=-1)
    action_rate = -ACTION_RATE_COST * torch.sum(torch.square(actions - previous_actions), dim=-1)
    energy = -ENERGY_COST * torch.sum(torch.abs(actions * joint_vel * JOINT_VEL_SCALE), dim=-1)
    joint_limits = -LIMIT_COST * torch.sum((torch.abs(joint_pos_fraction) > 0.99).float(), dim=-1)
    costs = action_l2 + action_rate + energy + joint_limits
    total = progress + yaw_progress + tracking + yaw_tracking + upright + alive + costs
    return total, {
        "velocity_progress": progress,
        "yaw_rate_progress": yaw_progress,
        "velocity_exp": tracking,
        "yaw_rate_exp": yaw_tracking,
        "upright": upright,
        "alive": alive,
        "action_l2": action_l2,
        "action_rate_l2": action_rate,
        "energy": energy,
        "joint_limits": joint_limits,
    }
