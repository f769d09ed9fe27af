"""Human-written reward of franka-cabinet.

The terms and weights are those of Isaac Lab's franka cabinet (Isaac-Franka-Cabinet-Direct, after IsaacGymEnvs): closeness
1.5 / (1 + d^2)^2, doubled within 2 cm; alignment of the gripper with the drawer 1.5, by squared cosines that keep their
sign; opening 10 per metre; fingers above and below the handle, 2 per metre on the wrong side; action cost 0.05; and 0.25 each
past 0.01, 0.2 and 0.35 m.
"""

import torch
from torch import Tensor

DISTANCE_WEIGHT = 1.5
ALIGNMENT_WEIGHT = 1.5
OPEN_WEIGHT = 10.0
FINGER_WEIGHT = 2.0
ACTION_COST = 0.05


def compute_reward(
    handle_distance: Tensor,
    grip_forward_axis_w: Tensor,
    grip_up_axis_w: Tensor,
    left_fingertip_position_w: Tensor,
    right_fingertip_position_w: Tensor,
    handle_position_w: Tensor,
    drawer_pos: Tensor,
    actions: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    distance = handle_distance[:, 0]
    near = torch.square(1.0 / (1.0 + torch.square(distance)))
    near = DISTANCE_WEIGHT * torch.where(distance <= 0.02, 2.0 * near, near)

    forward, up = grip_forward_axis_w[:, 0], grip_up_axis_w[:, 2]
    aligned = torch.sign(forward) * torch.square(forward) + torch.sign(up) * torch.square(up)
    alignment = ALIGNMENT_WEIGHT * 0.5 * aligned

    above = left_fingertip_position_w[:, 2] - handle_position_w[:, 2]
    below = handle_position_w[:, 2] - right_fingertip_position_w[:, 2]
    around = FINGER_WEIGHT * (torch.clamp(above, max=0.0) + torch.clamp(below, max=0.0))

    opened = drawer_pos[:, 0]
    opening = OPEN_WEIGHT * opened
    bonus = 0.25 * ((opened > 0.01).float() + (opened > 0.2).float() + (opened > 0.35).float())
    action_l2 = -ACTION_COST * torch.sum(torch.square(actions), dim=-1)
    total = near + alignment + around + opening + bonus + action_l2
    return total, {
        "handle_distance_inverse": near,
        "gripper_alignment": alignment,
        "fingers_around_handle": around,
        "drawer_opening": opening,
        "opening_bonus": bonus,
        "action_l2": action_l2,
    }
