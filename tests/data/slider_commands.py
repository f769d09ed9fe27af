"""The mass on a rail, told where to go: the smallest task with commands, for tests of words."""

from tasks.commanded import CommandedTask
from tasks.commands import Command, CommandSet
from tasks.signals import Signal, SignalTable
from tests.data.slider import Slider


class SliderCommands(CommandedTask, Slider):
    """The mass keeps a commanded velocity."""

    name = "slider-commands"
    instruction = "keep the commanded velocity along the rail"
    commands = CommandSet(
        [
            Command("right", (0.5,), ("go right", "move right", "slide right", "to the right", "right please",
                                      "rightwards"), ("now right", "drive right")),
            Command("left", (-0.5,), ("go left", "move left", "slide left", "to the left", "left please",
                                      "leftwards"), ("now left", "drive left")),
            Command("hold", (0.0,), ("hold still", "stop", "halt", "do not move", "stop please", "stop there"),
                    ("stop now", "hold it")),
        ]
    )  # fmt: skip
    command_time_s = 1.0
    fitness_settle_s = 0.3
    fitness_scale = (0.25,)
    signal_table = SignalTable(
        [*Slider.signal_table, Signal("command", 1, "m/s", "world", "command", "wanted velocity along the rail")]
    )

    def signals(self, sim):
        """Those of the mass, and the command."""
        return {**super().signals(sim), "command": sim.memory["command"]}

    def command_numbers(self, signals):
        """The wanted velocity."""
        return signals["command"]

    def fitness_achieved(self, signals):
        """The velocity."""
        return signals["mass_velocity"]
