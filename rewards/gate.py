"""The front door: a designer's reply in, an accepted reward or every reason why not out.

Three stages, each only after the one before: extract one program, check its syntax, try it in a child
process. The same door is for an LLM's reply, a user's file and the library's own rewards.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rewards.check import RULES, check
from rewards.expressions import Violation
from rewards.graph import GraphError, read_graph
from rewards.rebuild import refuse_excess
from rewards.sandbox import run_trials
from rewards.source import EXTRACTION_CODES, ExtractionError, RewardSource, extract
from rewards.trial_rules import TRIAL_RULES
from tasks.signals import Signals, SignalTable

Stage = Literal["extract", "check", "trial", "accepted"]

MAX_EXPLAINED = 30
"""Most problems that `Verdict.explain` spells out: a designer mends the first ones first."""
CONTEXT_LINES = 1

_EXTRACTION_RULES = {
    "E101": "a reply holds one ```python block with one program",
    "E102": "a reply holds one ```python block with one program",
    "E103": "the program defines compute_reward at the top level",
    "E104": "the program must be valid Python",
    "E105": "the program must be of moderate length",
    "E106": "a reply ends after its program, not within it",
    "E107": "a reply is text",
}
_HEADLINES = {
    "extract": "No reward program could be taken from the reply.",
    "check": "The reward program breaks the rules for reward programs.",
    "trial": "The reward program failed when it was tried on sampled signals.",
    "accepted": "The reward program was accepted.",
}


@dataclass(frozen=True)
class Verdict:
    """What the gate says about one reply."""

    accepted: bool
    """Whether the program may train."""
    source: RewardSource | None
    """The program; None only if none could be extracted."""
    stage: Stage
    """Where it was stopped, or "accepted"."""
    problems: tuple[Violation, ...]
    """Every problem of that stage, by line."""
    components: tuple[str, ...]
    """Names of the components, as far as the trial saw them."""
    time_per_call_s: float | None
    """Seconds of one call on one thread at the largest sampled batch; None unless accepted."""
    graph: dict[str, Any] | None = None
    """The reward graph as plain data, for `rewards.function.build_reward`; None unless accepted."""

    def explain(self) -> str:
        """The verdict for the program's author: each problem with the lines around it, its rule and the way
        out."""
        lines = [_HEADLINES[self.stage]]
        if self.accepted:
            clock = "" if self.time_per_call_s is None else f", {self.time_per_call_s * 1e6:.0f} us a call"
            return f"{lines[0]} Components: {', '.join(self.components)}{clock}."
        count = len(self.problems)
        lines[0] += f" {count} problem{'s' if count != 1 else ''}:"
        program = self.source.text.split("\n") if self.source else []
        for number, problem in enumerate(self.problems[:MAX_EXPLAINED], 1):
            place = f"line {problem.line}, " if problem.line else ""
            lines += ["", f"{number}. {place}{problem.code}: {problem.message}"]
            lines += _quote(program, problem.line)
            rule = _rule(problem.code)
            lines += [f"   rule: {rule}."] if rule else []
            lines += [f"   do:   {problem.hint}"] if problem.hint else []
        if count > MAX_EXPLAINED:
            lines += ["", f"... and {count - MAX_EXPLAINED} more problems of the same stage."]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The verdict as plain data for `json.dumps`, the full explanation included."""
        source = self.source
        return {
            "accepted": self.accepted,
            "stage": self.stage,
            "problems": [{**asdict(item), "rule": _rule(item.code)} for item in self.problems],
            "components": list(self.components),
            "time_per_call_s": self.time_per_call_s,
            "source": None if source is None else {**asdict(source), "sha256": source.sha256},
            "explanation": self.explain(),
        }


def admit(reply: str, table: SignalTable, samples: Sequence[Signals], *, origin: str = "") -> Verdict:
    """Judge one reply; see `admit_many`."""
    return admit_many([reply], table, samples, origins=[origin])[0]


def admit_many(
    replies: Sequence[str],
    table: SignalTable,
    samples: Sequence[Signals],
    *,
    origins: Sequence[str] | None = None,
    timeout_s: float = 20.0,
    num_envs: int = 0,
) -> list[Verdict]:
    """Judge replies, with one child process for all their trials; verdicts in the order of the replies.

    Args:
        samples: batches of signals from real rollouts, best of two sizes; see `rewards.sandbox.run_trials`.
        origins: where each reply came from, kept in its source.
        timeout_s: seconds that each trial may take.
        num_envs: worlds of the training to come: a program that would need too much memory or work there is refused
            here, from the shapes in its graph. Every program is looked at for 4096 worlds at least.

    Raises:
        UserError: samples that do not fit the table, or a trial process that does not start. Never on account
            of a reply.
    """
    names = list(origins) if origins is not None else [""] * len(replies)
    verdicts: dict[int, Verdict] = {}
    sources: dict[int, RewardSource] = {}
    for index, (reply, origin) in enumerate(zip(replies, names, strict=True)):
        found = _extracted(reply, origin)
        if isinstance(found, Verdict):
            verdicts[index] = found
        elif violations := check(found.text, table):
            verdicts[index] = Verdict(False, found, "check", tuple(violations), (), None)
        else:
            sources[index] = found
    reports = run_trials([source.text for source in sources.values()], table, samples, timeout_s) if sources else []
    for (index, source), report in zip(sources.items(), reports, strict=True):
        if excess := _excess(report.graph, num_envs):
            verdicts[index] = Verdict(False, source, "trial", (excess,), report.components, None)
            continue
        stage: Stage = "accepted" if report.ok else "trial"
        clock = report.time_per_call_s
        verdicts[index] = Verdict(report.ok, source, stage, report.problems, report.components, clock, report.graph)
    return [verdicts[index] for index in range(len(replies))]


def _excess(graph: dict[str, Any] | None, num_envs: int) -> Violation | None:
    """What is too large about an accepted graph for so many worlds; allocates nothing."""
    if graph is None or num_envs <= 0:
        return None
    try:
        refuse_excess(read_graph(graph), num_envs)
    except GraphError as error:
        return Violation(0, "T211", str(error), "make smaller tensors and fewer operations for each world")
    return None


def _extracted(reply: str, origin: str) -> RewardSource | Verdict:
    try:
        return RewardSource(extract(reply).text, origin)
    except ExtractionError as error:
        hint = "answer with one ```python block that holds the whole program"
        problem = Violation(error.line, EXTRACTION_CODES[error.code], error.message, hint)
        return Verdict(False, None, "extract", (problem,), (), None)


def _rule(code: str) -> str:
    return RULES.get(code) or TRIAL_RULES.get(code) or _EXTRACTION_RULES.get(code, "")


def _quote(program: Sequence[str], line: int) -> list[str]:
    """The line and its neighbours with numbers, the line itself marked."""
    if not 1 <= line <= len(program):
        return []
    first, last = max(1, line - CONTEXT_LINES), min(len(program), line + CONTEXT_LINES)
    return [
        f"   {'>' if number == line else ' '} {number:4d} | {program[number - 1][:200]}"
        for number in range(first, last + 1)
    ]
