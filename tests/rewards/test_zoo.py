"""Every reply of `tests/rewards/zoo/` through the gate: hostile, broken and ordinary, each with its verdict.

A file begins with a comment that names the verdict ("check R107", "accepted"), the task and why; what follows is the
reply, byte for byte. The signals are normally distributed, with worlds at rest among them.
"""

import dataclasses
import resource
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from rewards.check import check
from rewards.gate import Verdict, admit_many
from rewards.source import ExtractionError, extract
from tasks.registry import make
from tasks.signals import Signals, SignalTable

ZOO = Path(__file__).parent / "zoo"
CASE_LIMIT_S = 2.0
ZOO_LIMIT_S = 60.0
MIN_REFUSED = 150
MIN_ACCEPTED = 35
AT_REST = 4
CATEGORIES = {
    "false_refusals",
    *("accepted", "bombs", "capability", "cheating", "escapes", "global_state"),
    *("injection", "interface", "malformed", "numeric"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One file of the zoo."""

    name: str
    stage: str
    code: str
    task: str
    why: str
    reply: str


def read_case(path: Path) -> Case:
    header, _, reply = path.read_bytes().partition(b"-->\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines()[1:])
    stage, _, code = fields["expect"].partition(" ")
    text = reply.decode("utf-8", "surrogatepass" if b"\xed\xa0" in reply else "replace")
    return Case(f"{path.parent.name}/{path.stem}", stage, code, fields["task"], fields["why"], text)


CASES = [read_case(path) for path in sorted(ZOO.rglob("*.md"))]
TABLES: dict[str, SignalTable] = {name: make(name).signal_table for name in sorted({case.task for case in CASES})}


def samples(table: SignalTable, num_envs: int) -> Signals:
    """Signals of any size and sign; the first worlds are at rest, all numbers 0."""
    generator = torch.Generator().manual_seed(num_envs)
    found = {item.name: torch.randn(num_envs, item.dims, generator=generator) for item in table}
    for tensor in found.values():
        tensor[:AT_REST] = 0.0
    return found


def wrong(case: Case, verdict: Verdict) -> str:
    """What differs from the expected verdict; "" if nothing does."""
    codes = {problem.code for problem in verdict.problems}
    if verdict.stage == case.stage and (case.code in codes or case.stage == "accepted"):
        return ""
    problems = [(problem.line, problem.code, problem.message[:100]) for problem in verdict.problems[:3]]
    return f"{case.name}: expected {case.stage} {case.code}, came {verdict.stage} {problems}"


@pytest.fixture(scope="module")
def judged() -> tuple[list[Verdict], float]:
    """The verdicts in the order of the cases, and the seconds of processor time that all took."""
    began = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    verdicts: dict[str, Verdict] = {}
    for task, table in TABLES.items():
        cases = [case for case in CASES if case.task == task]
        batches = [samples(table, 64), samples(table, 257)]
        found = admit_many([case.reply for case in cases], table, batches)
        verdicts.update({case.name: verdict for case, verdict in zip(cases, found, strict=True)})
    ended = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    return [verdicts[case.name] for case in CASES], ended - began


def test_the_zoo_is_large_and_whole() -> None:
    counts = Counter(case.name.split("/")[0] for case in CASES)
    assert set(counts) == CATEGORIES
    assert len(CASES) - counts["accepted"] >= MIN_REFUSED
    assert sum(case.stage == "accepted" for case in CASES) >= MIN_ACCEPTED
    assert all(case.stage in ("extract", "check", "trial", "accepted") and case.why for case in CASES)
    assert len(TABLES) >= 2


def test_every_verdict_holds(judged: tuple[list[Verdict], float]) -> None:
    found = [wrong(case, verdict) for case, verdict in zip(CASES, judged[0], strict=True)]
    found = [line for line in found if line]
    assert not found, f"{len(found)} of {len(CASES)}:\n" + "\n".join(found)


def test_no_refusal_is_without_a_way_out(judged: tuple[list[Verdict], float]) -> None:
    """What the designer reads: a hint for every problem, bounded in length however long the reply."""
    for case, verdict in zip(CASES, judged[0], strict=True):
        assert all(problem.hint and problem.message for problem in verdict.problems), case.name
        assert all(len(problem.message) < 700 for problem in verdict.problems), case.name
        assert len(verdict.explain()) < 40_000, case.name


def test_the_whole_zoo_takes_little_time(judged: tuple[list[Verdict], float]) -> None:
    assert judged[1] < ZOO_LIMIT_S


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_case_costs_long_before_it_runs(case: Case) -> None:
    """Processor time of extraction and check: the machine may be busy."""
    began = time.process_time()
    try:
        check(extract(case.reply).text, TABLES[case.task])
    except ExtractionError:
        assert case.stage == "extract"
    assert time.process_time() - began < CASE_LIMIT_S
