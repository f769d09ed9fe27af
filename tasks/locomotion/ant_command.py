"""The ant of ant-run, told where to go: run, walk slowly, turn left or right, go backwards, stand still.

Body, timing, start and failures are those of `tasks.locomotion.ant`, except that an episode starts facing anywhere.
What is told changes every 5 s (`tasks.commanded`). A policy that is told by words observes what one of ant-run does.
"""

from __future__ import annotations

from tasks.locomotion.ant import AntRun
from tasks.locomotion.walking import WALKING_SIGNALS, WalkingTask
from tasks.locomotion.walking_words import walking_commands
from tasks.signals import SignalTable


class AntCommand(WalkingTask, AntRun):
    """The ant follows commands."""

    name = "ant-command"
    instruction = (
        "make the ant follow the commanded forward, sideways and turning velocity, which changes every few seconds; "
        "commands are to run forward, walk slowly forward, turn left, turn right, go backwards and stand still"
    )
    # The ant runs at 5 m/s and more when that is all it learns; half of that leaves time to change over.
    commands = walking_commands(run_m_s=2.0, walk_m_s=0.7, back_m_s=1.0, turn_rad_s=1.0)
    signal_table = SignalTable([*AntRun.signal_table, *WALKING_SIGNALS])
