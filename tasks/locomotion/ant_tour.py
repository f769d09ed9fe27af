"""The ant visits coloured posts in an order told in words; it is walked by whoever learnt ant-command."""

from __future__ import annotations

from tasks.locomotion.ant_command import AntCommand
from tasks.locomotion.walking_tour import WalkingTour
from tasks.signals import SignalTable
from tasks.tour import TOUR_SIGNALS


class AntTour(WalkingTour, AntCommand):
    """Posts for the ant."""

    name = "ant-tour"
    instruction = "make the ant visit coloured posts in a given order, then stand still; a planner commands it"
    signal_table = SignalTable([*AntCommand.signal_table, *TOUR_SIGNALS])
