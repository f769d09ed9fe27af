"""The quadcopter of quadcopter-hover, told where to fly, and a tour of it in the air.

Commands are velocities along the heading, the horizontal direction in which the nose points: forward, to the left, up;
and the rate of turning. Body, timing and motors are those of `tasks.classic.quadcopter`; a flight is lost near the
floor, above 5 m, and when it is overturned. A policy observes velocities, rates, the world's up direction and the last
actions: nothing of where it is.

On a tour a post ends in a ball in the air, and is visited there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.classic.flying_words import FLYING
from tasks.classic.quadcopter import QuadcopterHover
from tasks.commanded import CommandedTask
from tasks.math import quat_rotate_inverse
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import SimulationState
from tasks.tour import TOUR_SIGNALS, TourTask

MAX_HEIGHT_M = 5.0
FLYING_SIGNALS = (
    Signal("command_velocity", 3, "m/s", "heading", "command", "velocity asked for: forward, to the left, up"),
    Signal("command_yaw_rate", 1, "rad/s", "heading", "command", "rate of turning asked for; positive is to the left"),
    Signal("heading_velocity", 3, "m/s", "heading", "linear_velocity", "of the quadcopter: forward, to the left, up"),
    Signal("yaw_rate", 1, "rad/s", "heading", "angular_velocity", "of the quadcopter, about the vertical"),
)
"""What such a task publishes beside the signals of the body."""


class QuadcopterCommand(CommandedTask, QuadcopterHover):
    """The quadcopter follows commands."""

    name = "quadcopter-command"
    instruction = (
        "make the quadcopter follow the commanded forward, sideways and vertical velocity and rate of turning, which "
        "change every few seconds; commands are to fly forward fast or slowly, turn left or right, climb, descend and "
        "hover"
    )
    commands = FLYING
    command_time_s = 2.0
    fitness_scale = (0.4, 0.4, 0.4, 0.5)
    signal_table = SignalTable(
        [
            *(s for s in QuadcopterHover.signal_table if not s.name.startswith("target_")),
            *FLYING_SIGNALS,
        ]
    )

    def signals(self, sim: SimulationState) -> Signals:
        """The body's own, the command, and its velocities along the heading."""
        signals = {name: tensor for name, tensor in super().signals(sim).items() if not name.startswith("target_")}
        command, velocity = sim.memory["command"], signals["linear_velocity_w"]
        forward = torch.nn.functional.normalize(signals["forward_axis_w"][:, :2], dim=-1)
        left = torch.stack([-forward[:, 1], forward[:, 0]], dim=-1)
        along = [(velocity[:, :2] * axis).sum(dim=-1) for axis in (forward, left)]
        up_b = self._up_b(signals)
        return signals | {
            "command_velocity": command[:, :3],
            "command_yaw_rate": command[:, 3:],
            "heading_velocity": torch.stack([*along, velocity[:, 2]], dim=-1),
            "yaw_rate": (up_b * signals["angular_velocity_b"]).sum(dim=-1, keepdim=True),
        }

    def observe_told(self, signals: Signals) -> Tensor:
        """What a policy sees that is told by words (N, 13): velocity, rates and up in the body frame, last actions."""
        parts = [signals["linear_velocity_b"], signals["angular_velocity_b"], self._up_b(signals), signals["actions"]]
        return torch.cat(parts, dim=-1)

    def command_numbers(self, signals: Signals) -> Tensor:
        """The command (N, 4): velocity forward, to the left and up, yaw rate."""
        return torch.cat([signals["command_velocity"], signals["command_yaw_rate"]], dim=-1)

    def fitness_achieved(self, signals: Signals) -> Tensor:
        """Velocity forward, to the left and up, m/s, and yaw rate, rad/s (N, 4)."""
        return torch.cat([signals["heading_velocity"], signals["yaw_rate"]], dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Near the floor, too high, or overturned."""
        height = signals["position_w"][:, 2]
        return {
            "too_low": height < 0.1,
            "too_high": height > MAX_HEIGHT_M,
            "overturned": signals["up_axis_w"][:, 2] < 0.0,
        }

    @staticmethod
    def _up_b(signals: Signals) -> Tensor:
        up_w = torch.zeros_like(signals["position_w"])
        up_w[:, 2] = 1.0
        return quat_rotate_inverse(signals["orientation_w"], up_w)


class QuadcopterTour(TourTask, QuadcopterCommand):
    """Posts for the quadcopter."""

    name = "quadcopter-tour"
    instruction = "make the quadcopter visit coloured balls in a given order, then hover; a planner commands it"
    signal_table = SignalTable([*QuadcopterCommand.signal_table, *TOUR_SIGNALS])
    tour_body = "quadcopter"
    tour_eyes_m = (0.18, 0.0, 0.02)
    tour_heights_m = (0.9, 2.2)
    # A flight starts up to 2.1 m from the origin.
    tour_near_m = 3.2
    tour_far_m = 6.0
    tour_reach_m = 0.7

    def tour_position(self, signals: Signals) -> Tensor:
        """Of the centre of mass."""
        return signals["position_w"]

    def tour_heading(self, signals: Signals) -> Tensor:
        """Of the nose."""
        forward = signals["forward_axis_w"]
        return torch.atan2(forward[:, 1], forward[:, 0])

    def tour_motion(self, signals: Signals) -> tuple[Tensor, Tensor]:
        """In space, and about the vertical."""
        return torch.linalg.norm(signals["linear_velocity_w"], dim=-1), signals["yaw_rate"][:, 0].abs()
