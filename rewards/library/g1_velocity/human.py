"""Human-written reward of g1-velocity.

Terms and weights are those of Isaac Lab's flat G1 (Isaac-Velocity-Flat-G1): linear velocity tracking 1.0 and yaw rate
tracking 1.0, each exp(-error^2 / 0.25); vertical velocity -0.2, roll and pitch rate -0.05, tilt -1, torques of hips and
knees -2e-6, change of actions -0.005, ankles beyond 90 % of their range -1, hips' roll and yaw, waist and arms away from
the default pose -0.1 each rad, feet that slide -0.1; and for steps 0.75 x the time of the present single stance, at most
0.4 s, where the command is not to stand. A fall costs 200 there. A reward cannot see the end of an episode; an alive
reward of 2 is worth as much at a discount of 0.99. Action scales are mjlab's doubled, about Isaac Lab's 0.5 rad doubled,
so that the change of actions weighs four times as much. Left out: joint accelerations, which are no signal.
"""

import torch
from torch import Tensor

LINEAR_TRACKING = 1.0
YAW_TRACKING = 1.0
TRACKING_VARIANCE = 0.25
ALIVE = 2.0
VERTICAL_COST = 0.2
ROLL_PITCH_COST = 0.05
TILT_COST = 1.0
TORQUE_COST = 2.0e-6
ACTION_RATE_COST = 0.02
ANKLE_LIMIT_COST = 1.0
POSTURE_COST = 0.1
SLIDE_COST = 0.1
STANCE = 0.75
MAX_STANCE_S = 0.4
STANDING_SPEED = 0.1
HIP_ROLL_YAW = [1, 2, 7, 8]
HIPS_KNEES = [0, 1, 2, 3, 6, 7, 8, 9]
WAIST_AND_ARMS = 12
ANKLES = [4, 5, 10, 11]
# 90 % of the ankles' ranges about their middle, as offsets from the default pose (pitch -0.363, roll 0).
ANKLE_LOW = [-0.43987, -0.23562, -0.43987, -0.23562]
ANKLE_HIGH = [0.81680, 0.23562, 0.81680, 0.23562]


def compute_reward(
    command_velocity_b: Tensor,
    command_yaw_rate: Tensor,
    base_linear_velocity_b: Tensor,
    base_angular_velocity_b: Tensor,
    projected_gravity_b: Tensor,
    joint_pos_offset: Tensor,
    joint_torque: Tensor,
    foot_contact: Tensor,
    foot_speed: Tensor,
    foot_air_time: Tensor,
    foot_contact_time: Tensor,
    actions: Tensor,
    previous_actions: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    error = torch.sum(torch.square(base_linear_velocity_b[:, :2] - command_velocity_b), dim=-1)
    yaw_error = torch.square(base_angular_velocity_b[:, 2] - command_yaw_rate[:, 0])
    tracking = LINEAR_TRACKING * torch.exp(-error / TRACKING_VARIANCE)
    yaw_tracking = YAW_TRACKING * torch.exp(-yaw_error / TRACKING_VARIANCE)
    alive = ALIVE * torch.ones_like(tracking)
    vertical = -VERTICAL_COST * torch.square(base_linear_velocity_b[:, 2])
    roll_pitch = -ROLL_PITCH_COST * torch.sum(torch.square(base_angular_velocity_b[:, :2]), dim=-1)
    tilt = -TILT_COST * torch.sum(torch.square(projected_gravity_b[:, :2]), dim=-1)
    torque = -TORQUE_COST * torch.sum(torch.square(joint_torque[:, HIPS_KNEES]), dim=-1)
    action_rate = -ACTION_RATE_COST * torch.sum(torch.square(actions - previous_actions), dim=-1)
    ankles = joint_pos_offset[:, ANKLES]
    low = torch.tensor(ANKLE_LOW, device=ankles.device)
    high = torch.tensor(ANKLE_HIGH, device=ankles.device)
    beyond = torch.clamp(low - ankles, min=0.0) + torch.clamp(ankles - high, min=0.0)
    ankle_limits = -ANKLE_LIMIT_COST * torch.sum(beyond, dim=-1)
    hips = torch.sum(torch.abs(joint_pos_offset[:, HIP_ROLL_YAW]), dim=-1)
    upper = torch.sum(torch.abs(joint_pos_offset[:, WAIST_AND_ARMS:]), dim=-1)
    posture = -POSTURE_COST * (hips + upper)
    slide = -SLIDE_COST * torch.sum(foot_speed * foot_contact, dim=-1)
    moving = (torch.linalg.norm(command_velocity_b, dim=-1) > STANDING_SPEED).float()
    single = (torch.sum(foot_contact, dim=-1) == 1.0).float()
    phase = torch.amin(foot_air_time + foot_contact_time, dim=-1)
    stance = STANCE * moving * single * torch.clamp(phase, max=MAX_STANCE_S)
    total = tracking + yaw_tracking + alive + vertical + roll_pitch + tilt + torque
    total = total + action_rate + ankle_limits + posture + slide + stance
    return total, {
        "linear_velocity_exp": tracking,
        "yaw_rate_exp": yaw_tracking,
        "alive": alive,
        "vertical_velocity_l2": vertical,
        "roll_pitch_rate_l2": roll_pitch,
        "tilt_l2": tilt,
        "torque_l2": torque,
        "action_rate_l2": action_rate,
        "ankle_limits_l1": ankle_limits,
        "posture_l1": posture,
        "foot_slide_l1": slide,
        "single_stance": stance,
    }
