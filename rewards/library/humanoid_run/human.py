"""Human-written reward of humanoid-run.

The terms and weights are those of IsaacGymEnvs' Humanoid: progress towards a far target ahead (weight 1 on the
forward speed), up 0.1 above 0.93, heading 0.5 saturating at 0.8, alive 2, action cost 0.01, energy cost 0.05, joint
limits 0.25 beyond 98 % of the range; the last two weigh each motor by its share of the strongest one. Velocity stands
for the difference of potentials, which is the same quantity per second. Falling costs no extra term: the episode ends
and the alive reward with it.
"""

import torch
from torch import Tensor

HEADING_WEIGHT = 0.5
UP_WEIGHT = 0.1
ALIVE = 2.0
ACTION_COST = 0.01
ENERGY_COST = 0.05
LIMIT_COST = 0.25
JOINT_VEL_SCALE = 0.1
LEG_SHARE = [0.333, 0.333, 1.0, 0.667, 0.167, 0.167]
ARM_SHARE = [0.5, 0.5, 0.333]
MOTOR_SHARE = [0.5, 0.5, 0.5] + LEG_SHARE + LEG_SHARE + ARM_SHARE + ARM_SHARE


def compute_reward(
    torso_linear_velocity_w: Tensor,
    up_axis_w: Tensor,
    forward_axis_w: Tensor,
    joint_pos_fraction: Tensor,
    joint_vel: Tensor,
    actions: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    forward_velocity = torso_linear_velocity_w[:, 0]
    heading = forward_axis_w[:, 0]
    heading_reward = HEADING_WEIGHT * torch.clamp(heading / 0.8, max=1.0)
    upright = UP_WEIGHT * (up_axis_w[:, 2] > 0.93).float()
    alive = ALIVE * torch.ones_like(forward_velocity)
    share = torch.tensor(MOTOR_SHARE, dtype=actions.dtype, device=actions.device)
    action_l2 = -ACTION_COST * torch.sum(actions * actions, dim=-1)
    energy = -ENERGY_COST * torch.sum(torch.abs(actions * joint_vel * JOINT_VEL_SCALE) * share, dim=-1)
    joint_limits = -LIMIT_COST * torch.sum((torch.abs(joint_pos_fraction) > 0.98).float() * share, dim=-1)
    total = forward_velocity + heading_reward + upright + alive + action_l2 + energy + joint_limits
    return total, {
        "forward_velocity": forward_velocity,
        "heading": heading_reward,
        "upright": upright,
        "alive": alive,
        "action_l2": action_l2,
        "energy": energy,
        "joint_limits": joint_limits,
    }
