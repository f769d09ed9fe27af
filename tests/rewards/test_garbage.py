"""Whatever comes as a reply, the gate answers with a verdict, in bounded time, and never raises."""

import json
import time
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewards import gate
from rewards.gate import Verdict, admit_many
from rewards.sandbox import TrialReport
from tests.rewards.programs import GOOD, TABLE, program, signals
from tests.rewards.test_zoo import CASES

LIMIT_S = 2.0
SEEDS = [f"```python\n{GOOD}```\n", GOOD, program("pass"), *(case.reply for case in CASES if case.stage == "accepted")]
TOKENS = [
    "```",
    "~~~",
    "```python",
    "<think>",
    "</think>",
    "def",
    "compute_reward(",
    "actions",
    "height",
    "torso_velocity_w",
    "):",
    "return",
    "lambda",
    "for",
    "in",
    "if",
    "else",
    "with",
    "import",
    "from",
    "as",
    "torch",
    ".",
    "torch.cos",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ";",
    "=",
    "+=",
    "*",
    "**",
    "/",
    "//",
    "-",
    "~",
    "not",
    "and",
    "or",
    "is",
    "None",
    "True",
    "1",
    "0",
    "1e9",
    "9999999999",
    "0x",
    "'a'",
    '"',
    "'''",
    '"""',
    "f'{",
    "}",
    "#",
    "\\",
    "@",
    "->",
    ":=",
    "...",
    "_",
    "__class__",
    "x",
    "y",
    "z",
    "total",
    "range(",
    "1000",
    ")",
    "while",
    "True:",
    "del",
    "async",
    "await",
    "yield",
    "global",
    "print(",
    "\t",
    "\x0c",
    "\x00",
    "�",
    "\u202e",
    "ｓ",
    "é",
    "奖",
    "\u200b",
] + ["\n", "\n    ", "\n        ", " "]

SOUP = st.lists(st.sampled_from(TOKENS), max_size=120).map("".join)
BYTES = st.binary(max_size=400)
DECODED = st.one_of(
    *(BYTES.map(lambda data, how=how: data.decode(*how)) for how in (("latin-1",), ("utf-8", "replace"), ("utf-8", "surrogateescape")))
)  # fmt: skip
TEXT = st.text(st.characters(), max_size=300)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good reply after some edits: cut off, pieces dropped, repeated, moved, replaced by tokens or by any text."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = text[start:end]
        new = draw(
            st.one_of(st.just(""), st.just(piece * 30), st.sampled_from(TOKENS), st.text(st.characters(), max_size=5))
        )
        text = text[:start] + new + text[end:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


def passed(texts: list[str], *_: object) -> list[TrialReport]:
    return [TrialReport((), ("a",), 1e-6, 4) for _ in texts]


def judge(reply: object) -> Verdict:
    """The gate without its trial: a verdict with all that a search stores and a designer reads."""
    began = time.process_time()
    with mock.patch.object(gate, "run_trials", passed):
        verdict = admit_many([reply], TABLE, [])[0]  # type: ignore[list-item]
    json.dumps(verdict.to_json())
    assert time.process_time() - began < LIMIT_S
    return verdict


EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@EXAMPLES
@given(reply=st.one_of(TEXT, DECODED, SOUP))
def test_garbage_gets_a_verdict(reply: str) -> None:
    verdict = judge(reply)
    assert verdict.accepted or (verdict.problems and all(item.code and item.hint for item in verdict.problems))


@EXAMPLES
@given(body=SOUP)
def test_garbage_inside_a_program_gets_a_verdict(body: str) -> None:
    judge(f"```python\n{program(*body.splitlines())}\n```")


@EXAMPLES
@given(reply=damaged())
def test_a_damaged_reply_gets_a_verdict(reply: str) -> None:
    judge(reply)


@pytest.mark.parametrize("reply", [None, b"def compute_reward(", 3, [GOOD], {"content": GOOD}])
def test_what_is_no_text_gets_a_verdict(reply: object) -> None:
    verdict = judge(reply)
    assert [item.code for item in verdict.problems] == ["E107"]


@settings(max_examples=2, deadline=None, database=None, derandomize=True)
@given(replies=st.lists(damaged(), min_size=30, max_size=60))
def test_damaged_programs_that_run_get_a_verdict_too(replies: list[str]) -> None:
    verdicts = admit_many(replies, TABLE, [signals(16), signals(33)])
    assert len(verdicts) == len(replies)


MONSTERS = {
    "fences": "```\nx\n```\n" * 90_000,
    "programs": "".join(f"```\n{program(*['x = a + 1'] * 2000)}# {i}\n```\n" for i in range(20)),
    "open fences": "~~~\n" * 240_000,
    "nested fences": "````\n```\ncompute_reward\n```\n````\n" * 30_000,
    "thoughts": "<think>" * 140_000,
    "blanks": " " * 999_000 + "x",
    "backticks": "`" * 999_000,
    "no end": "x" * 5_000_000,
    "not": program("x = " + "not " * 60 + "(" + " + ".join(["a"] * 1) + ")"),
    "wide": program("x = " + "not (" * 60 + ", ".join(["a"] * 3000) + ")" * 60),
    "unknown": program(*[f"q{i} = zz{i}" for i in range(900)]),
    "backwards": program(*[f"x{i} = x{i + 1}" for i in range(900)]),
    "calls": "".join(f"def f{i}(x):\n    return f{i + 1}(x, x, x)\n" for i in range(60)) + program("pass"),
    "lists": program("x = [a]", *["x = [x, x, x]"] * 300, "y = x if a.shape[0] else [x]"),
    "tuples": program("x = (a,)", *["x = (x, x)"] * 300, "y = x if a.shape[0] > 5 else (x, x)"),
    "sums": program("n = 2", "n = " + " + ".join(["n"] * 70), "for i in range(n):", "    b = 1"),
    "loops": program(*["for i in range(1000):", "    x = [j for j in range(1)]"] * 20),
    "zips": program("x = [1.0] * 1000", *["for i in range(1000):", "    y = list(zip(x, x))"]),
    "texts": program("s = 'a'", *["s = f'{s}{s}{s}{s}'"] * 100),
    "numbers": program("n = 7", *["n = n ** 64"] * 100),
    "names": program("x = " + "y" * 19_000 + " + " + "y" * 18_000 + "z"),
}


@pytest.mark.parametrize("name", MONSTERS)
def test_monsters_take_bounded_time(name: str) -> None:
    verdict = judge(MONSTERS[name])
    assert not verdict.accepted or name in ("not", "zips")
    assert all(len(item.message) < 1000 for item in verdict.problems)
