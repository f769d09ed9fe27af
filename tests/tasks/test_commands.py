"""Commands in words: who says what, what is understood, and which sets are refused."""

from __future__ import annotations

import pytest
import torch

from tasks.commands import Command, CommandSet
from tasks.errors import UserError
from tasks.locomotion.walking_words import walking_commands


def phrases(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem} {number}" for number in range(count))


def command(name: str, values=(0.0,), wordings=None, held_out=None) -> Command:
    return Command(
        name,
        values,
        phrases(f"please {name}", 6) if wordings is None else wordings,
        phrases(f"kindly {name}", 2) if held_out is None else held_out,
    )


GO = command("go", (1.5, -0.5), ("go on", "Walk  on", "set off", "start", "move", "get going"), ("off you go", "leave"))
HALT = command(
    "halt", (0.0, 0.0), ("stop", "wait", "rest", "stay", "stand", "pause", "hold"), ("no further", "enough", "whoa")
)


@pytest.fixture
def pair() -> CommandSet:
    return CommandSet([GO, HALT])


def test_numbers_names_and_places(pair):
    assert pair.names == ("go", "halt") and len(pair) == 2 and [one.name for one in pair] == ["go", "halt"]
    assert pair.values.dtype == torch.float32 and pair.values.tolist() == [[1.5, -0.5], [0.0, 0.0]]
    assert pair.index("halt") == 1 and pair["halt"] is HALT and pair[0] is GO
    with pytest.raises(UserError, match=r"no command 'hald'; expected one of go, halt\. Did you mean 'halt'\?$"):
        pair.index("hald")


def test_a_number_takes_its_phrase_and_goes_round(pair):
    """Six phrases for one, seven for the other; 13 is the second of six and the seventh of seven."""
    told, wording = torch.tensor([0, 1, 0, 1]), torch.tensor([13, 13, 5, 2**31 - 2])
    assert pair.say(told, wording) == ["Walk  on", "hold", "get going", HALT.wordings[(2**31 - 2) % 7]]
    assert pair.say(told, wording, held_out=True) == ["leave", "enough", "leave", HALT.held_out[(2**31 - 2) % 3]]
    assert ("enough", 1) in pair.phrases(held_out=True) and ("enough", 1) not in pair.phrases()
    assert len(pair.phrases()) == 13 and len(pair.phrases(held_out=True)) == 5


def test_what_is_said_is_understood(pair):
    for phrase, place in [*pair.phrases(), *pair.phrases(held_out=True), ("go", 0), ("halt", 1)]:
        assert pair.understand(phrase) == place
    assert pair.understand("  walk on. ") == 0 and pair.understand("NO FURTHER") == 1
    with pytest.raises(UserError, match=r"'get goin'; expected a phrase of 'go', 'halt'\. Did you mean 'get going'\?$"):
        pair.understand("get goin")
    with pytest.raises(UserError, match="is called 'sing me a song'"):
        pair.understand("sing me a song")


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (lambda: command(" "), "has no name"),
        (lambda: command("a", ()), "its values are ()"),
        (lambda: command("a", (float("nan"),)), "its values are (nan,)"),
        (lambda: command("a", wordings=phrases("a", 5)), "has 5 wordings; expected at least 6"),
        (lambda: command("a", held_out=("b",)), "has 1 held_out; expected at least 2"),
        (lambda: command("a", held_out="backwards"), "held_out is one text"),
        (lambda: command("a", wordings=(*phrases("a", 6), " ")), "one of its wordings is empty"),
        (lambda: CommandSet([GO]), "two commands or more, got 1"),
        (lambda: CommandSet([command("a"), command("b"), command("a")]), "unique; repeated: a"),
        (lambda: CommandSet([command("a"), command("b", (0.0, 1.0))]), "command 'b' has 2 values, 'a' 1"),
        (
            lambda: CommandSet([command("a"), command("b", held_out=("x", "PLEASE a  3"))]),
            "the phrase 'please a 3' stands twice, in 'a' and in 'b'",
        ),
        (lambda: CommandSet([command("a", held_out=("x", "x")), command("b")]), "'x' stands twice, in 'a' and in 'a'"),
        (lambda: CommandSet([command("a"), command("b", held_out=("A", "x"))]), "name 'a' is also a phrase of 'b'"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(build, line):
    with pytest.raises(UserError) as caught:
        build()
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_walking_commands_say_their_side():
    """Each turn names its own side only, in training and in tests, and turning left is positive."""
    walking = walking_commands(run_m_s=2.0, walk_m_s=0.5, back_m_s=0.7, turn_rad_s=0.9)
    assert walking.names == (
        "run forward", "walk slowly forward", "turn left", "turn right", "go backwards", "stand still"
    )  # fmt: skip
    expected = [[2, 0, 0], [0.5, 0, 0], [0, 0, 0.9], [0, 0, -0.9], [-0.7, 0, 0], [0, 0, 0]]
    assert torch.allclose(walking.values, torch.tensor(expected))
    for name, own, other in (
        ("turn left", ("left", "counter-clockwise"), "right"),
        ("turn right", ("right", " clockwise"), "left"),
    ):
        one = walking[name]
        for phrase in (*one.wordings, *one.held_out):
            assert any(word in phrase for word in own) and other not in phrase, phrase


def test_words_of_a_held_out_walking_phrase_were_heard_in_training():
    """Held-out phrases are new as a whole, and hardly a word in them is: a head without a vocabulary knows no synonyms."""
    walking = walking_commands(run_m_s=2.0, walk_m_s=0.5, back_m_s=0.7, turn_rad_s=0.9)
    heard = {word for phrase, _ in walking.phrases() for word in phrase.split()}
    told = [phrase.split() for phrase, _ in walking.phrases(held_out=True)]
    new = sorted({word for phrase in told for word in phrase if word not in heard})
    assert len(told) >= 12 and len(new) <= 3, new
    assert all(any(word in heard for word in phrase) for phrase in told)
