"""Taking one program out of replies of every shape."""

import contextlib
import random

import pytest

from rewards.check import check
from rewards.source import ExtractionError, RewardSource, extract, normalise
from tests.rewards.programs import GOOD, TABLE

P = (
    "import torch\nSCALE = 2.0\n\ndef kernel(x):\n    return x * SCALE\n\n"
    "def compute_reward(a):\n    return a, {'a': kernel(a)}\n"
)
OTHER = P.replace("2.0", "3.0")
HELPER = "def other(x):\n    return x\n"


def fenced(code: str, fence: str = "```", tag: str = "python", indent: str = "") -> str:
    lines = [f"{fence}{tag}", *code.rstrip("\n").split("\n"), fence]
    return "\n".join(indent + line if line else line for line in lines) + "\n"


@pytest.mark.parametrize(
    "reply",
    [
        fenced(P),
        fenced(P, tag=""),
        fenced(P, tag=" Py thon {.numberLines}"),
        fenced(P, fence="~~~"),
        fenced(P, fence="``````"),
        "Here:\n\n" + fenced(P, indent="    ") + "\nDone.",
        "1. first\n   " + fenced(P, indent="   ").lstrip(),
        "- ```python\n" + "\n".join("  " + line for line in P.splitlines()) + "\n  ```",
        "> " + fenced(P).rstrip().replace("\n", "\n> "),
        "```python\n" + P,  # the fence never ends
        "````markdown\n" + fenced(P) + "````\n",
        fenced(P) + "\nAgain:\n" + fenced(P),
        fenced(P) + "\nWith a comment:\n" + fenced("# the same\n" + P),
        fenced("pip install torch", tag="bash") + fenced(P) + fenced(HELPER),
        "<think>\n" + fenced(OTHER) + "</think>\n" + fenced(P),
        "First\n" + fenced(OTHER) + "</think>\n" + fenced(P),
        "Here it is: " + fenced(P),
        fenced(P).rstrip() + " That is all.\n",
        fenced(P).rstrip() + " Or `this`:\n",
        P,
        "\n\n" + P.replace("\n", "\r\n"),
        "    " + P.replace("\n", "\n    "),
        "\ufeff" + P,
    ],
)
def test_finds_the_program_with_its_helpers_and_constants(reply: str) -> None:
    assert extract(reply).text.strip().removeprefix("# the same\n") == P.strip()


def test_a_short_fence_does_not_end_a_longer_one() -> None:
    text = P + '"""\n```\nan example\n```\n"""\n'
    assert extract(fenced(text, fence="````")).text == text


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        ("", "no_code", "no code"),
        ("I cannot help with that.", "no_code", "code block"),
        ("<think>\n" + fenced(P) + "</think>\nSorry.", "no_code", "code block"),
        ("<think>\n" + fenced(P), "truncated", "inside its thoughts"),
        ("\x00\x01\x02" * 40, "not_text", "unprintable"),
        ("\ufffd" * 100, "not_text", "unprintable"),
        (b"def compute_reward", "not_text", "a bytes"),
        (None, "not_text", "a NoneType"),
        (fenced(P) + fenced(OTHER), "several", "different versions"),
        (fenced(P + P), "several", "2 times (lines 7, 15)"),
        (fenced(HELPER), "no_entry_point", "found only other"),
        (fenced(P.replace("compute_reward", "compute_rewards")), "no_entry_point", "Rename"),
        (fenced("class Env:\n    def compute_reward(self):\n        pass\n"), "no_entry_point", "class Env"),
        (HELPER, "no_entry_point", "found only other"),
        (fenced("print(1)"), "no_entry_point", "found no function"),
        (fenced(P.replace("return a, {", "return a, {{")), "syntax", "line 8"),
        ("```python\n" + P[:-8], "truncated", "cut off"),
        ("```python\n" + HELPER, "no_entry_point", "found only other"),
        ("Sure!\n" + P, "syntax", "in one ```python block"),
        (fenced(P + "x = '\0'\n"), "syntax", "null"),
        (fenced(P + "# " + "x" * 50_000), "too_long", "50"),
        ("x" * 3_000_000, "too_long", "3000000"),
    ],
)
def test_says_why_there_is_no_program(reply: str, code: str, words: str) -> None:
    with pytest.raises(ExtractionError) as caught:
        extract(reply)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hash_ignores_what_editors_change_and_nothing_else() -> None:
    hashes = {
        RewardSource(text).sha256 for text in (P, P.replace("\n", "\r\n"), "\n" + P + "\n\n", P.replace(":\n", ":  \n"))
    }
    assert len(hashes) == 1
    assert RewardSource(OTHER).sha256 not in hashes
    assert RewardSource("x = '\ud800'").sha256  # a lone surrogate has a hash too
    assert normalise("a  \r\nb") == "a\nb\n"


def garbage(rng: random.Random) -> str:
    """Random text, random fragments of code and fences, and good programs with random damage."""
    kind = rng.randrange(4)
    if kind == 0:
        return "".join(chr(rng.randrange(0x300)) for _ in range(rng.randrange(200)))
    if kind == 1:
        words = [
            "```",
            "~~~",
            "python",
            "\n",
            "def compute_reward(",
            "):",
            "    ",
            "return",
            "<think>",
            "</think>",
            "{",
            "]",
        ]
        words += [
            "lambda",
            "torch",
            ".",
            "*",
            "**",
            "actions",
            "0x",
            "'",
            '"""',
            "\\",
            "\0",
            "f'{",
            "async",
            "@",
            ":=",
            "\ud800",
        ]
        return "".join(rng.choice(words) for _ in range(rng.randrange(60)))
    letters = list(GOOD)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(letters))
        letters[place] = rng.choice(["", "(", ")", ":", "\n", " ", "_", "9", "torch", "\t", "é", "[", "\x0c", "*", "'"])
    text = "".join(letters)
    return text if kind == 2 else f"```\n{text}\n```"


def test_garbage_raises_nothing_but_typed_errors() -> None:
    rng = random.Random(20)
    checked = 0
    for _ in range(600):
        text = garbage(rng)
        violations = check(text, TABLE)
        assert all(item.code.startswith("R") and item.message and item.hint for item in violations)
        with contextlib.suppress(ExtractionError):  # any other exception fails the test
            check(extract(text).text, TABLE)
            checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "-" * 100_000 + "1",
        "x" + ".a" * 19_000,
        "x = " + "+".join(["1"] * 15_000),
        "x = " + "9" * 30_000,
        "if 1:\n" * 90,
        "".join(" " * i + "if 1:\n" for i in range(95)) + " " * 95 + "x = 1",
        "x = [" + "0," * 15_000 + "]",
        "\0" * 10,
        "\ud800",
        "a" * 1_000_000,
    ],
)
def test_monsters_are_refused_quickly(text: str) -> None:
    assert check(text, TABLE)
    with pytest.raises(ExtractionError):
        extract(f"```python\n{text}\n```")
