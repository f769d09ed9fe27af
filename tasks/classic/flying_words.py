"""What a quadcopter can be told, and in which words."""

from __future__ import annotations

from tasks.commands import Command, CommandSet

FORWARD_M_S, SLOW_M_S, CLIMB_M_S, TURN_RAD_S = 1.2, 0.5, 0.6, 1.0
"""A quarter of a metre is flown in a fifth of a second at the first; chosen here for posts 2 to 5 m away."""

FLYING = CommandSet(
    [
        Command(
            "fly forward",
            (FORWARD_M_S, 0.0, 0.0, 0.0),
            ("fly forward", "fly straight ahead", "go forward fast", "speed ahead", "fly ahead quickly", "dash forward",
             "move forward at full speed", "rush straight on"),
            ("quickly fly forward", "speed straight ahead", "move ahead fast"),
        ),
        Command(
            "fly slowly forward",
            (SLOW_M_S, 0.0, 0.0, 0.0),
            ("fly slowly forward", "drift forward", "go forward slowly", "move ahead at a slow pace",
             "glide ahead gently", "creep forward", "fly on without hurry", "advance gently"),
            ("slowly move forward", "glide slowly forward", "fly ahead at a slow pace"),
        ),
        Command(
            "turn left",
            (0.0, 0.0, 0.0, TURN_RAD_S),
            ("turn left", "rotate to the left", "yaw left", "turn to your left", "face further left", "spin left",
             "turn counter-clockwise"),
            ("rotate left", "yaw to the left", "spin to your left"),
        ),
        Command(
            "turn right",
            (0.0, 0.0, 0.0, -TURN_RAD_S),
            ("turn right", "rotate to the right", "yaw right", "turn to your right", "face further right", "spin right",
             "turn clockwise"),
            ("rotate right", "yaw to the right", "spin to your right"),
        ),
        Command(
            "climb",
            (0.0, 0.0, CLIMB_M_S, 0.0),
            ("climb", "fly up", "rise", "go higher", "ascend", "gain height", "move up"),
            ("climb higher", "rise up", "fly higher"),
        ),
        Command(
            "descend",
            (0.0, 0.0, -CLIMB_M_S, 0.0),
            ("descend", "fly down", "sink", "go lower", "come down", "lose height", "move down"),
            ("descend lower", "sink down", "fly lower"),
        ),
        Command(
            "hover",
            (0.0, 0.0, 0.0, 0.0),
            ("hover", "hold your position", "stay where you are", "stop", "stop in the air", "wait here", "hang still",
             "stay in place"),
            ("hover in place", "hold still", "stop and wait"),
        ),
    ]
)  # fmt: skip
