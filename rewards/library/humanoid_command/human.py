"""Human-written reward of humanoid-command.

Progress is that of IsaacGymEnvs' Humanoid, weight 1 on the speed, for a command: the speed along the commanded velocity, up
to what is commanded, and the yaw rate to the commanded side likewise. Beside it tracking as in Isaac Lab's flat velocity
tasks, 1.0 exp(-error^2 / 0.25) of the horizontal velocity, and as much of the yaw rate (there half), which by itself has
hardly a slope for a beginner. Change of actions -0.01, as there. The other terms and weights are the Humanoid's: up 0.1
above 0.93, alive 2, action cost 0.01, energy cost 0.05, joint limits 0.25 beyond 98 % of the range; the last two weigh each
motor by its share of the strongest one. Falling costs no extra term: the episode ends and the alive reward with it.
"""

import torch
from torch import Tensor

PROGRESS_WEIGHT = 1.0
VELOCITY_TRACKING = 1.0
YAW_TRACKING = 1.0
TRACKING_VARIANCE = 0.25
UP_WEIGHT = 0.1
ALIVE = 2.0
ACTION_COST = 0.01
ACTION_RATE_COST = 0.01
ENERGY_COST = 0.05
LIMIT_COST = 0.25
JOINT_VEL_SCALE = 0.1
LEG_SHARE = [0.333, 0.333, 1.0, 0.667, 0.167, 0.167]
ARM_SHARE = [0.5, 0.5, 0.333]
MOTOR_SHARE = [0.5, 0.5, 0.5] + LEG_SHARE + LEG_SHARE + ARM_SHARE + ARM_SHARE


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
    share = torch.tensor(MOTOR_SHARE, dtype=actions.dtype, device=actions.device)
    action_l2 = -ACTION_COST * torch.sum(actions * actions, dim=-1)
    action_rate = -ACTION_RATE_COST * torch.sum(torch.square(actions - previous_actions), dim=-1)
    energy = -ENERGY_COST * torch.sum(torch.abs(actions * joint_vel * JOINT_VEL_SCALE) * share, dim=-1)
    joint_limits = -LIMIT_COST * torch.sum((torch.abs(joint_pos_fraction) > 0.98).float() * share, dim=-1)
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
