"""The humanoid of humanoid-run, told where to go: run, walk slowly, turn left or right, go backwards, stand still.

Body, timing, start and failures are those of `tasks.locomotion.humanoid`, except that an episode starts facing
anywhere. What is told changes every 5 s (`tasks.commanded`). A policy that is told by words observes what one of
humanoid-run does.
"""

from __future__ import annotations

from tasks.locomotion.humanoid import HumanoidRun
from tasks.locomotion.walking import WALKING_SIGNALS, WalkingTask
from tasks.locomotion.walking_words import walking_commands
from tasks.signals import SignalTable


class HumanoidCommand(WalkingTask, HumanoidRun):
    """The humanoid follows commands."""

    name = "humanoid-command"
    instruction = (
        "make the humanoid follow the commanded forward, sideways and turning velocity, which changes every few "
        "seconds; commands are to run forward, walk slowly forward, turn left, turn right, go backwards and stand still"
    )
    commands = walking_commands(run_m_s=1.5, walk_m_s=0.6, back_m_s=0.6, turn_rad_s=0.8)
    signal_table = SignalTable([*HumanoidRun.signal_table, *WALKING_SIGNALS])
