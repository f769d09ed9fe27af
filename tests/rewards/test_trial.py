"""What the trial finds in a program, here in the test's own process; `test_gate.py` has the child process."""

import pytest
import torch

from rewards.check import check
from rewards.trial import examine
from rewards.trial_rules import TRIAL_RULES
from tests.rewards.programs import GOOD, TABLE, program, signals

BATCHES = [signals(64), signals(257)]

CAUGHT = [
    # codes, line, words, program
    ("T201", 5, "every signal is (N, dims)", program("total = total + actions")),
    ("T201", 2, "RuntimeError", "import torch\nW = torch.ones(2).reshape(3)\n" + program("pass")),
    ("T202", 6, "33", program("b = {f'a{i}': a for i in range(33)}", ret="total, b")),
    ("T202", 6, "not a component name", program("b = {i: a for i in range(3)}", ret="total, b")),
    ("T202", 6, "reserved", program("b = dict(total=a)", ret="total, b")),
    ("T202", 6, "the total is a float", program("total = 1.0")),
    ("T202", 6, "component 'a' is None", program("a = None")),
    ("T202", 6, "0 components", program("b = {}", ret="total, b")),
    ("T202", 6, "None", program("b = None", ret="b")),
    ("T203", 6, "component 'a' has shape (257, 1)", program("a = height")),
    ("T203", 6, "reduced over all worlds", program("total = total.mean()")),
    ("T204", 6, "torch.bool", program("a = a > 0")),
    ("T206", 6, "component 'a' is not finite in", program("a = torch.log(a)")),
    ("T209", 6, "'total'", program("total = total - total.mean()")),
    ("T209", 6, "'a'", program("a = a / a.abs().max()")),
    ("T209", 6, "'a'", program("a = a * (height > 0).any()")),
    ("T209", 6, "'a'", program("a = a * (height > -1e6).all() * torch.all(height > 0)")),
    ("T209", 6, "'total'", program("total = total.roll(1)")),
    ("T209", 6, "'total'", program("total = total.flip(0)")),
    ("T209", 6, "'total'", program("total = torch.cumsum(total, dim=0)")),
    ("T209", 6, "'total'", program("total = total / a.shape[0]")),
    ("T209", 6, "'total'", program("total = torch.softmax(total, dim=0)")),
    ("T209", 6, "'total'", program("total = torch.sort(total).values")),
    ("T210", 5, "mask", program("total = total + a[a > 0].sum()")),
    (
        "T210",
        5,
        "Python number",
        program("f = lambda x: 1.0 if x.sum() > 0 else 2.0", "total = total * f(a)"),
    ),
    ("T211", 5, "every PAIR of worlds, (257, 257)", program("total = (a + height).sum(dim=-1)")),
    ("T211", 5, "numbers per world", program("b = a.reshape(-1, 1, 1) * torch.ones(300, 1) * torch.ones(300)")),
]


@pytest.mark.parametrize(("code", "line", "words", "text"), CAUGHT)
def test_catches(code: str, line: int, words: str, text: str) -> None:
    assert check(text, TABLE) == []  # the check alone would let it pass
    problems = examine(text, TABLE, BATCHES)["problems"]
    assert any(words in f"{item[2]} {item[3]}" for item in problems if item[1] == code), problems
    assert any(item[0] == line for item in problems if item[1] == code), problems


REFUSED_BEFORE = [
    ("T201", 5, "call itself", program("f = lambda x: f(x)", "total = f(a)")),
    ("T208", 6, "'height'", program("b = height.view(-1)", "b[0] = 7.0")),
    ("T208", 8, "'actions'", program("def f(x):", "    return x.t()", "y = f(actions)", "y[0, 0] = 1.0")),
]


@pytest.mark.parametrize(("code", "line", "words", "text"), REFUSED_BEFORE)
def test_catches_what_the_check_should_have_refused(
    code: str, line: int, words: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(text, TABLE)
    monkeypatch.setattr("rewards.result.check", lambda *_: [])
    problems = examine(text, TABLE, BATCHES)["problems"]
    assert any(words in f"{item[2]} {item[3]}" and item[:2] == [line, code] for item in problems), problems


def test_a_sound_program_passes_with_its_components_and_a_clock() -> None:
    verdict = examine(GOOD, TABLE, BATCHES)
    assert verdict["problems"] == []
    assert verdict["components"] == ("forward", "upright_exp", "action_l2", "axis_0", "axis_1")
    assert 0.0 < verdict["time_per_call_s"] < 0.5


@pytest.mark.parametrize(
    "lines",
    [
        "total = (total - total.detach()) * 1e6 + a * 1e-3",  # large terms that cancel
        "total = torch.exp(torso_velocity_w).sum(dim=-1) / torch.linalg.norm(actions, dim=-1).clamp(1e-6)",
        "total = torch.einsum('ij,kj->ik', torso_velocity_w, torch.eye(3)).sum(dim=-1)",
        "total = torch.zeros(a.shape[0])",
        "total = torch.tensor(1.0).expand(a.shape[0])",
        "total = torch.where((actions > 0).any(dim=-1), a, 0.0)",
        "b = torso_velocity_w[:, torch.tensor([2, 0])]; total = b.max(dim=-1).values",
    ],
)
def test_rewards_of_single_worlds_pass(lines: str) -> None:
    assert examine(program(lines), TABLE, BATCHES)["problems"] == []


def test_counts_the_worlds_that_are_not_finite() -> None:
    batch = signals(257)
    batch["torso_velocity_w"][:, 0] = 1.0
    batch["torso_velocity_w"][:5, 0] = -1.0
    batch["torso_velocity_w"][5:12, 0] = 0.0
    problems = examine(program("a = torch.log(a)"), TABLE, [batch])["problems"]
    assert problems[0][2] == "component 'a' is not finite in 12 of 257 worlds (5 NaN, 7 infinite)."


def test_determinism_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """No allowed program is random, so the program is replaced by one that is."""
    calls = []

    def unsteady(*arguments: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        calls.append(1)
        value = arguments[0][:, 0] + len(calls)
        return value, {"a": value}

    monkeypatch.setattr("rewards.trial.load_program", lambda text, table: unsteady)
    problems = examine(program("pass"), TABLE, BATCHES)["problems"]
    assert [item[1] for item in problems] == ["T207"]


def test_a_problem_of_the_smaller_batch_alone_is_found() -> None:
    batch = signals(64)
    batch["torso_velocity_w"][3, 0] = -1.0
    other = signals(257)
    other["torso_velocity_w"].abs_()
    problems = examine(program("a = torch.sqrt(a)"), TABLE, [batch, other])["problems"]
    assert [item[1] for item in problems] == ["T206"]
    assert "of 64 worlds" in problems[0][2]


def test_codes_are_documented() -> None:
    assert {code for code, *_ in CAUGHT} < set(TRIAL_RULES)
