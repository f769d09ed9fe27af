"""Human-written reward of anymal-velocity.

Terms and weights are those of Isaac Lab's flat ANYmal C (Isaac-Velocity-Flat-Anymal-C): linear velocity tracking 1.0 and
yaw rate tracking 0.5, each exp(-error^2 / 0.25); vertical velocity -2, roll and pitch rate -0.05, torques -2.5e-5, change
of actions -0.01, tilt -5, and the feet's air time beyond 0.5 s at touchdown 0.5, where the command is not to stand.
Alive 2, which is worth the 200 that a fall costs in Isaac Lab's G1 at a discount of 0.99: a reward cannot see the end of
an episode, and without it the costs of a beginner outweigh its tracking, so that it learns to fall (measured).
An action here is 1 rad where it is 0.5 rad there, so that its change weighs four times as much. Left out: joint
accelerations (-2.5e-7), which are no signal. Touchdowns happen once a swing, as there, while all else is per step.
"""

import torch
from torch import Tensor

LINEAR_TRACKING = 1.0
YAW_TRACKING = 0.5
TRACKING_VARIANCE = 0.25
VERTICAL_COST = 2.0
ROLL_PITCH_COST = 0.05
TORQUE_COST = 2.5e-5
ACTION_RATE_COST = 0.04
ALIVE = 2.0
TILT_COST = 5.0
AIR_TIME = 0.5
SWING_S = 0.5
STANDING_SPEED = 0.1


def compute_reward(
    command_velocity_b: Tensor,
    command_yaw_rate: Tensor,
    base_linear_velocity_b: Tensor,
    base_angular_velocity_b: Tensor,
    projected_gravity_b: Tensor,
    joint_torque: Tensor,
    foot_air_time: Tensor,
    foot_touchdown: Tensor,
    actions: Tensor,
    previous_actions: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    error = torch.sum(torch.square(base_linear_velocity_b[:, :2] - command_velocity_b), dim=-1)
    yaw_error = torch.square(base_angular_velocity_b[:, 2] - command_yaw_rate[:, 0])
    tracking = LINEAR_TRACKING * torch.exp(-error / TRACKING_VARIANCE)
    yaw_tracking = YAW_TRACKING * torch.exp(-yaw_error / TRACKING_VARIANCE)
    vertical = -VERTICAL_COST * torch.square(base_linear_velocity_b[:, 2])
    roll_pitch = -ROLL_PITCH_COST * torch.sum(torch.square(base_angular_velocity_b[:, :2]), dim=-1)
    tilt = -TILT_COST * torch.sum(torch.square(projected_gravity_b[:, :2]), dim=-1)
    torque = -TORQUE_COST * torch.sum(torch.square(joint_torque), dim=-1)
    action_rate = -ACTION_RATE_COST * torch.sum(torch.square(actions - previous_actions), dim=-1)
    alive = ALIVE * torch.ones_like(tracking)
    moving = (torch.linalg.norm(command_velocity_b, dim=-1) > STANDING_SPEED).float()
    air_time = AIR_TIME * moving * torch.sum((foot_air_time - SWING_S) * foot_touchdown, dim=-1)
    total = tracking + yaw_tracking + vertical + roll_pitch + tilt + torque + action_rate + air_time + alive
    return total, {
        "linear_velocity_exp": tracking,
        "yaw_rate_exp": yaw_tracking,
        "vertical_velocity_l2": vertical,
        "roll_pitch_rate_l2": roll_pitch,
        "tilt_l2": tilt,
        "torque_l2": torque,
        "action_rate_l2": action_rate,
        "air_time": air_time,
        "alive": alive,
    }
