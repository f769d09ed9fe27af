"""What a walking body can be told, and in which words; the same phrases for all bodies, speeds are each body's own."""

from __future__ import annotations

from tasks.commands import Command, CommandSet


def walking_commands(*, run_m_s: float, walk_m_s: float, back_m_s: float, turn_rad_s: float) -> CommandSet:
    """Six commands of three numbers: velocity forward and to the left (m/s), yaw rate (rad/s, positive to the left).

    Held-out phrases put words of the others together in another way, with hardly a new one among them: what is tested
    is whether words are understood, not whether synonyms are known that a model without a vocabulary cannot know.
    """
    turns = [_turn("left", "counter-clockwise", turn_rad_s), _turn("right", "clockwise", -turn_rad_s)]
    return CommandSet(
        [
            Command(
                "run forward",
                (run_m_s, 0.0, 0.0),
                ("run forward", "run straight ahead", "sprint forward", "go forward fast", "run ahead quickly",
                 "move forward at full speed", "hurry straight on", "dash ahead", "rush forward",
                 "go ahead as fast as you can"),
                ("quickly run forward", "sprint straight ahead", "move ahead fast", "run on at full speed"),
            ),
            Command(
                "walk slowly forward",
                (walk_m_s, 0.0, 0.0),
                ("walk slowly forward", "walk forward", "go forward slowly", "stroll ahead",
                 "move ahead at a slow pace", "take slow steps forward", "walk straight on without hurry",
                 "creep forward", "advance gently", "walk ahead at an easy pace"),
                ("slowly move forward", "stroll forward", "walk on at a slow pace", "take a gentle walk ahead"),
            ),
            *turns,
            Command(
                "go backwards",
                (-back_m_s, 0.0, 0.0),
                ("go backwards", "walk backwards", "back up", "move back", "reverse", "go in reverse", "step back",
                 "retreat", "back away", "move to the rear"),
                ("walk back", "move in reverse", "step backwards", "back off"),
            ),
            Command(
                "stand still",
                (0.0, 0.0, 0.0),
                ("stand still", "stop", "do not move", "hold still", "stay where you are", "halt", "wait here",
                 "freeze", "remain in place", "stop moving and wait"),
                ("stay still", "stop moving", "stand where you are", "hold your place"),
            ),
        ]
    )  # fmt: skip


def _turn(side: str, sense: str, rate_rad_s: float) -> Command:
    """Turning on the spot; both sides are told in the same phrases."""
    phrases = ("turn {}", "rotate to the {}", "spin {}", "turn to your {}", "swing round to the {}", "make a {} turn",
               "face further {}", "pivot {}", "keep turning {}")  # fmt: skip
    held_out = ("rotate {}", "spin to the {}", "pivot to your {}", "swing {}")
    return Command(
        f"turn {side}",
        (0.0, 0.0, rate_rad_s),
        (*(phrase.format(side) for phrase in phrases), f"turn {sense}"),
        tuple(phrase.format(side) for phrase in held_out),
    )
