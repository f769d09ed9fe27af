"""The humanoid visits coloured posts in an order told in words; it is walked by whoever learnt humanoid-command."""

from __future__ import annotations

from tasks.locomotion.humanoid_command import HumanoidCommand
from tasks.locomotion.walking_tour import WalkingTour
from tasks.signals import SignalTable
from tasks.tour import TOUR_SIGNALS


class HumanoidTour(WalkingTour, HumanoidCommand):
    """Posts for the humanoid."""

    name = "humanoid-tour"
    instruction = "make the humanoid visit coloured posts in a given order, then stand still; a planner commands it"
    signal_table = SignalTable([*HumanoidCommand.signal_table, *TOUR_SIGNALS])
    tour_eyes_m = (0.2, 0.0, 0.3)
