"""The whole way from reply to verdict, with the trial's child process. Few starts: each imports torch."""

import json
import os
import signal
import time

import pytest
import torch

from rewards import sandbox
from rewards.gate import Verdict, admit_many
from rewards.sandbox import TrialError, run_trial, run_trials
from tasks.errors import UserError
from tests.rewards.programs import GOOD, TABLE, program, signals

HANG = program(
    "b = torch.ones(4096)", "b = b.unsqueeze(0) * b.unsqueeze(1)", "for i in range(900):", "    b = torch.exp(-b)"
)
GREEDY = program("b = torch.ones(4096)", "b = torch.einsum('i,j,k->ijk', b, b, b)")


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    """One batch with everything that can happen, a hanging program in its middle."""
    replies = [
        f"Sure.\n```python\n{GOOD}```\nGood luck!",
        "I would rather not.",
        program("a = torch.log(a)"),
        HANG,
        GREEDY,
        program("b = torch.squre(a)", "c = undefined"),
        program("pass"),
    ]
    origins = [f"reply {index}" for index in range(len(replies))]
    return admit_many(replies, TABLE, [signals(64), signals(257)], origins=origins, timeout_s=8.0)


def test_each_reply_gets_its_own_verdict_in_order(verdicts: list[Verdict]) -> None:
    stages = ["accepted", "extract", "trial", "trial", "trial", "check", "accepted"]
    assert [item.stage for item in verdicts] == stages
    assert [item.accepted for item in verdicts] == [stage == "accepted" for stage in stages]
    codes = [{problem.code for problem in item.problems} for item in verdicts]
    assert codes == [set(), {"E101"}, {"T206"}, {"T212"}, {"T201"}, {"R108", "R105"}, set()]
    assert [item.source.origin if item.source else None for item in verdicts][::2] == [
        f"reply {i}" for i in (0, 2, 4, 6)
    ]
    assert verdicts[0].components[:2] == ("forward", "upright_exp")
    assert verdicts[6].components == ("a",)
    assert verdicts[0].time_per_call_s is not None


def test_a_hang_is_told_with_its_line(verdicts: list[Verdict]) -> None:
    assert verdicts[3].problems[0].line == 8
    assert "within 8 s" in verdicts[3].problems[0].message


def test_explain_quotes_the_line_with_rule_and_hint(verdicts: list[Verdict]) -> None:
    text = verdicts[5].explain()
    assert "2 problems" in text
    assert "1. line 5, R108: 'torch.squre' is not available. Did you mean 'square'?" in text
    assert "   >    5 |     b = torch.squre(a)" in text
    assert "        6 |     c = undefined" in text
    assert "   rule: only pure tensor functions are available." in text
    assert "   do: " in text
    assert "Components: a," in verdicts[6].explain()


def test_verdicts_are_json(verdicts: list[Verdict]) -> None:
    data = json.loads(json.dumps([item.to_json() for item in verdicts]))
    assert data[1]["source"] is None
    assert data[2]["problems"][0]["rule"] == "total and components are finite"
    assert data[0]["source"]["sha256"] == verdicts[0].source.sha256  # type: ignore[union-attr]
    assert data[5]["explanation"] == verdicts[5].explain()


def test_the_child_sees_no_key_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://x")
    environment = sandbox.child_environment()
    assert "secret" not in environment.values()
    assert not {"OPENAI_API_KEY", "HTTPS_PROXY", "PYTHONPATH"} & set(environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert os.environ["OPENAI_API_KEY"] == "secret"


def test_a_child_that_does_not_read_costs_its_time_and_no_more() -> None:
    """Stopped between two jobs: more than a pipe takes is to be written to it, then closed."""
    assert run_trial(program("pass"), TABLE, [signals(32)]).ok
    stopped = sandbox._server
    assert stopped is not None
    os.kill(stopped._child.pid, signal.SIGSTOP)
    began = time.monotonic()
    report = run_trial(program("b = 2"), TABLE, [signals(40_000)], timeout_s=1.5)
    assert [item.code for item in report.problems] == ["T212"]
    assert time.monotonic() - began < 60.0
    assert stopped._child.poll() is not None
    assert run_trial(program("pass"), TABLE, [signals(32)]).ok


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["b = torch.einsum('ni,j,k->nijk', actions, torch.ones(64), torch.ones(16))", "total = total + b.sum(dim=(1, 2, 3))"], "GiB for 600000 worlds"),
        (["b = (actions.unsqueeze(-1) * torch.ones(1, 1, 2000)).exp()", "total = total + b.sum(dim=(1, 2))"], "GiB for 600000 worlds"),
    ],
)  # fmt: skip
def test_memory_and_work_are_bounded_at_the_trainings_number_of_worlds(lines: list[str], told: str) -> None:
    """Nothing of that size is made: an accepted graph says what it needs anywhere."""
    verdicts = {
        worlds: admit_many([program(*lines)], TABLE, [signals(64), signals(257)], num_envs=worlds)[0]
        for worlds in (0, 512, 600_000)
    }
    assert [item.accepted for item in verdicts.values()] == [True, True, False]
    assert [item.code for item in verdicts[600_000].problems] == ["T211"]
    assert told in verdicts[600_000].problems[0].message


def test_samples_are_made_fit_or_refused() -> None:
    """Worlds that diverged are left out, and a second size is made of half the worlds."""
    batch = signals(40)
    batch["height"][3] = float("nan")
    batches = sandbox._batches([batch], TABLE)
    assert [len(item["height"]) for item in batches] == [19, 39]
    assert all(bool(torch.isfinite(item["height"]).all()) for item in batches)
    with pytest.raises(UserError, match="at least 4"):
        run_trial(program("pass"), TABLE, [signals(3)])
    with pytest.raises(UserError, match="at least 4"):
        run_trial(program("pass"), TABLE, [])
    with pytest.raises(UserError, match="height"):
        run_trial(program("pass"), TABLE, [{**signals(8), "height": torch.zeros(8)}])


def test_a_program_that_the_check_refuses_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_ask", lambda *_: pytest.fail("a child was asked"))
    report = run_trial(program("import os"), TABLE, [signals(8)])
    assert [item.code for item in report.problems] == ["R104"]


# Last, since the child of all others is replaced by one with another program.


def test_a_crash_costs_one_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """No allowed program crashes the interpreter, so the child kills itself at the marked program."""
    crash = _BOOT_WITH_CRASH.format(boot=sandbox._BOOT.strip().rsplit("\n", 1)[0])
    monkeypatch.setattr(sandbox, "_BOOT", crash)
    texts = [program("pass"), program("boom = 1"), program("b = 2")]
    reports = run_trials(texts, TABLE, [signals(32)])
    assert [item.ok for item in reports] == [True, False, True]
    assert [item.code for item in reports[1].problems] == ["T213"]
    assert "SIGKILL" in reports[1].problems[0].message


_BOOT_WITH_CRASH = """
{boot}
import os, signal
import rewards.trial_child as child
examine_on = child.examine_on
def crashing(text, table, inputs, **options):
    if "boom" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    return examine_on(text, table, inputs, **options)
child.examine_on = crashing
main()
"""


def test_a_child_that_does_not_start_is_no_programs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_BOOT", "raise SystemExit('no torch here')")
    with pytest.raises(TrialError, match=r"exit status 1\): no torch here"):
        run_trial(program("pass"), TABLE, [signals(32)])
