"""What tours of walking bodies share: where a body is, where it faces, how it moves, from the signals of its task."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.signals import Signals
from tasks.tour import TourTask


class WalkingTour(TourTask):
    """Base class: stands before a task of `tasks.locomotion.walking`."""

    def tour_position(self, signals: Signals) -> Tensor:
        """Of the torso."""
        return signals["torso_position_w"]

    def tour_heading(self, signals: Signals) -> Tensor:
        """Of the torso."""
        forward = signals["forward_axis_w"]
        return torch.atan2(forward[:, 1], forward[:, 0])

    def tour_motion(self, signals: Signals) -> tuple[Tensor, Tensor]:
        """Along the ground, and about the vertical."""
        return torch.linalg.norm(signals["heading_velocity"], dim=-1), signals["yaw_rate"][:, 0].abs()
