"""What tasks share in which each hand has something of its own to grip: where that is, and how far the fingers are.

In Bi-DexHands' tasks of doors, scissors, bottles and blocks the reward starts from the sum of the distances between the
five fingertips of a hand and its point of the object, and an episode is over when that sum is large; both are here.

It does not know the object: a task's file adds it, with the sensors "right_grip_position" and "left_grip_position".
Axes: N worlds. The hands' bases move.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasks.bimanual.two_hands import TwoHandsTask, hand_signals
from tasks.robots import shadow
from tasks.robots.shadow_pair import SIDES
from tasks.signals import Signal, Signals
from tasks.sim import SimulationState


def grip_signals(right: str, left: str) -> list[Signal]:
    """The signals of `hand_signals` and where each hand is to grip; `right`, `left`: what is there, in words."""
    found = hand_signals(moving=True)
    for side, what in zip(SIDES, (right, left), strict=True):
        found += [
            Signal(f"{side}_grip_position_w", 3, "m", "world", "position", f"what the {side} hand should grip: {what}"),
            Signal(f"{side}_grip_offset_w", 3, "m", "world", "position", f"from {side}_palm_position_w to it"),
            Signal(f"{side}_palm_distance", 1, "m", "world", "distance", f"the length of {side}_grip_offset_w"),
            Signal(
                f"{side}_finger_distance",
                1,
                "m",
                "world",
                "distance",
                "sum of the five fingertips' distances from what the hand should grip",
            ),
        ]
    return found


class GripTask(TwoHandsTask):
    """Base class: a subclass adds the object and says what of it the policy sees."""

    far_m: ClassVar[tuple[float, float]]
    """Sum of the fingertips' distances, right and left hand, at which an episode ends."""

    def object_parts(self, signals: Signals) -> list[Tensor]:
        """What the policy sees of the object besides the grips."""
        raise NotImplementedError

    def grips_now(self, sim: SimulationState) -> Signals:
        """The signals of `grip_signals`."""
        found = self.hands_now(sim)
        for side in SIDES:
            grip = sim.sensor(f"{side}_grip_position")
            offset = grip - found[f"{side}_palm_position_w"]
            tips = found[f"{side}_fingertip_position_w"] - grip.repeat(1, len(shadow.FINGERS))
            found[f"{side}_grip_position_w"] = grip
            found[f"{side}_grip_offset_w"] = offset
            found[f"{side}_palm_distance"] = torch.linalg.norm(offset, dim=-1, keepdim=True)
            lengths = torch.linalg.norm(tips.unflatten(-1, (len(shadow.FINGERS), 3)), dim=-1)
            found[f"{side}_finger_distance"] = lengths.sum(dim=-1, keepdim=True)
        return found

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 208 and the object's): each hand from its grip, both grips, the object."""
        right, left = signals["right_grip_position_w"], signals["left_grip_position_w"]
        parts = [*self.hand_parts(signals, "right", right), *self.hand_parts(signals, "left", left), right, left]
        return torch.cat([*parts, *self.object_parts(signals)], dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """A hand has left what it should grip."""
        return {
            f"{side}_hand_far": signals[f"{side}_finger_distance"][:, 0] > far
            for side, far in zip(SIDES, self.far_m, strict=True)
        }
