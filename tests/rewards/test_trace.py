"""The runnable reward: right values, nothing shared with the caller, errors with the program's line."""

import math

import pytest
import torch

from rewards.function import build_reward
from rewards.result import RewardError
from rewards.trace import load_program, program_line
from tasks.errors import UserError
from tests.rewards.programs import GOOD, TABLE, program, signals


def test_values_against_arithmetic_on_plain_numbers() -> None:
    reward = build_reward(GOOD, TABLE)
    batch = signals(5)
    total, components = reward(batch)
    assert reward.inputs == ("torso_velocity_w", "up_axis_w", "height", "actions")
    for world in range(5):
        v, u, h, a = (batch[name][world].tolist() for name in reward.inputs)
        upright = math.exp(-((1 - u[2]) ** 2) / 0.5)
        cost = a[0] ** 2 + (2 * a[1]) ** 2
        bonus = 0.1 * (2.0 if h[0] > 0.5 else 0.0) + 0.1 * (1.0 if v[0] > 0 else 0.0)
        soft = math.log1p(math.exp(a[0])) + math.log1p(math.exp(a[1]))
        assert components["upright_exp"][world].item() == pytest.approx(upright, rel=1e-5)
        assert components["action_l2"][world].item() == pytest.approx(cost, rel=1e-5)
        expected = v[0] + 0.5 * upright + soft - 0.1 * cost + bonus
        assert total[world].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_results_share_no_memory_with_signals_constants_or_each_other() -> None:
    text = program(
        "b = torso_velocity_w[:, 1]",
        "c = torch.ones(()).expand(a.shape[0])",
        ret="a, {'a': a, 'b': b, 'c': c}",
    )
    reward = build_reward(text, TABLE)
    batch = signals(8)
    for _ in range(2):
        kept = {name: tensor.clone() for name, tensor in batch.items()}
        total, components = reward(batch)
        expected = total.clone()
        for value in components.values():
            value.add_(100.0)
        assert torch.equal(total, expected)
        total.zero_()
        assert all(torch.equal(batch[name], kept[name]) for name in batch)
    constant = "import torch\nONE = torch.ones(1)\n" + program("pass", ret="ONE.expand(a.shape[0]), {'a': a}")
    reward = build_reward(constant, TABLE)
    for worlds in (1, 8):
        batch = signals(worlds)
        reward(batch)[0].zero_()
        assert torch.equal(reward(batch)[0], torch.ones(worlds))


def test_nothing_unchecked_is_built() -> None:
    with pytest.raises(UserError, match=r"line 5, R108.*and 1 more"):
        build_reward(program("b = torch.os", "c = torch.sys"), TABLE)


def test_programs_see_neither_torch_nor_builtins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace is a second wall: what slips through the check finds nothing behind `torch`."""
    monkeypatch.setattr("rewards.result.check", lambda text, table: [])
    for line in (
        "torch.os.getcwd()",
        "torch.load('x')",
        "open('x')",
        "getattr(a, 'x')",
        "eval('1')",
        "math.inf",
    ):
        entry = load_program(program(f"b = {line}"), TABLE)
        with pytest.raises((AttributeError, NameError)) as caught:
            entry(torch.ones(4, 3), torch.ones(4, 1), torch.ones(4, 2))
        assert program_line(caught.value) == 5


def test_runtime_errors_carry_type_and_innermost_line() -> None:
    text = program("def f(x):", "    return x + actions", "total = f(a)")
    with pytest.raises(RewardError, match="line 6: RuntimeError") as caught:
        build_reward(text, TABLE)
    assert (caught.value.error_type, caught.value.line) == ("RuntimeError", 6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("total = height", "'total' is (N, 1)"),
        ("a = a > 0", "torch.bool"),
        ("a = 1.0", "component 'a' is a float"),
    ],
)
def test_wrong_results_are_refused_before_the_first_call(line: str, words: str) -> None:
    with pytest.raises(RewardError) as caught:
        build_reward(program(line), TABLE)
    assert words in str(caught.value)


def test_nan_is_returned_as_it_is_and_no_gradient_is_recorded() -> None:
    batch = signals(6)
    batch["torso_velocity_w"][2] = float("nan")
    batch["actions"].requires_grad_()
    total, components = build_reward(program("total = total + actions.sum(dim=-1)"), TABLE)(batch)
    assert torch.isnan(total).tolist() == [False, False, True, False, False, False]
    assert torch.isnan(components["a"]).sum() == 1
    assert not total.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_program_runs_on_a_gpu() -> None:
    reward = build_reward(GOOD, TABLE)
    batch = signals(300)
    total, _ = reward(batch)
    on_gpu, _ = reward({name: tensor.cuda() for name, tensor in batch.items()})
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), total, rtol=1e-5, atol=1e-5)
