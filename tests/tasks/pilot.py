"""A quadcopter's pilot in closed form: what quadcopter-command can be flown with, apart from any training.

Velocity error to a wanted acceleration, that to a thrust and a wanted up direction, the tilt towards it by proportional
and derivative torque, and all four to rotor thrusts by the layout in quadcopter.xml.
"""

from __future__ import annotations

import torch
from torch import Tensor

G, MASS_KG, HOVER_N = 9.81, 1.325, 3.2495625
X_M = torch.tensor([-0.14, -0.14, 0.14, 0.14])
Y_M = torch.tensor([-0.18, 0.18, 0.18, -0.18])
DRAG_M = torch.tensor([-0.0201, 0.0201, -0.0201, 0.0201])
INERTIA = torch.tensor([0.033, 0.022, 0.055])  # of four rotors of 0.25 kg and the hull
VELOCITY_GAIN, TILT_GAIN, RATE_GAIN, YAW_GAIN = 2.0, 60.0, 12.0, 4.0


def pilot(observation: Tensor) -> Tensor:
    """Actions (N, 4) for observations (N, 17) of quadcopter-command."""
    velocity, rates, up = observation[:, 0:3], observation[:, 3:6], observation[:, 6:9]
    wanted, yaw = observation[:, 13:16], observation[:, 16]
    nose = torch.zeros_like(up)
    nose[:, 0] = 1.0
    forward = torch.nn.functional.normalize(nose - (nose * up).sum(1, keepdim=True) * up, dim=1)
    frame = torch.stack([forward, torch.linalg.cross(up, forward), up], dim=1)  # rows: heading axes in the body
    pull = VELOCITY_GAIN * (wanted - (frame @ velocity[:, :, None])[:, :, 0])
    pull[:, :2] = pull[:, :2].clamp(-4.0, 4.0)
    pull[:, 2] += G
    force = (pull[:, None] @ frame)[:, 0]  # wanted acceleration in the body frame
    direction = torch.nn.functional.normalize(force, dim=1)
    lift = torch.zeros_like(up)
    lift[:, 2] = 1.0
    turn = TILT_GAIN * torch.linalg.cross(lift, direction) - RATE_GAIN * rates
    turn[:, 2] = YAW_GAIN * (yaw - (rates * up).sum(1))
    torque = INERTIA * turn
    thrust = (
        MASS_KG * force[:, 2:] / 4
        + torque[:, 0:1] * Y_M / (4 * 0.18**2)
        - torque[:, 1:2] * X_M / (4 * 0.14**2)
        + torque[:, 2:3] * DRAG_M / (4 * 0.0201**2)
    )
    return thrust / HOVER_N - 1.0
