"""What a search's record says: did each generation improve, where the best reward came from, why candidates failed.

Pure functions of a `SearchRecord`. Fitness is held-out fitness in the task's unit, higher is better; a candidate
without one takes no part in any comparison. Spreads over seeds are sample standard deviations (n - 1).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from eureka.candidate import Candidate, Status
from eureka.report_counts import Generation
from eureka.report_data import Run, SearchRecord, number
from eureka.report_text import format_number
from eureka.score import Score, human_normalised, over_seeds

ROLES = {"final": "best reward", "human": "human reward", "sparse": "sparse reward"}
"""Role of a final run -> what the page calls it."""

STORIES = 50
"""Generations whose sentences the page of a long search holds: the latest, and as many of those that improved."""

MEANINGS = {
    "refused at extract": "No single reward program could be taken out of the reply.",
    "refused at check": "The program uses something that is not allowed, or a signal that the task does not have.",
    "refused at trial": "The program broke a rule of rewards when it was tried on sampled states.",
    "no reply": "The designer returned nothing that could be judged.",
    "reward_error": "The reward raised an error during training.",
    "nonfinite_reward": "The reward became NaN or infinite during training.",
    "nonfinite_policy": "The policy's parameters became NaN or infinite during training.",
    "diverged": "The simulation diverged.",
    "time_limit": "The training ran out of its time limit.",
    "rejected": "The training process refused the reward program.",
    "error": "The training process ended with an error.",
}
"""How a candidate can fail -> the same in one sentence."""


@dataclass(frozen=True)
class GenerationStory:
    """One generation in one sentence; `verdict` is "improved", "not improved", "first", "nothing" or "running"."""

    generation: int
    verdict: str
    sentence: str
    said: str = ""
    """What a person said after it."""


@dataclass(frozen=True)
class FailureGroup:
    """Candidates that failed in the same way: how many, and of those shown the first line that says why."""

    title: str
    meaning: str
    cases: tuple[tuple[str, str], ...]
    number: int


@dataclass(frozen=True)
class Spending:
    """What was asked of the designer in one generation, or in all (`generation` None). None: not told."""

    generation: int | None
    asks: int
    replies: int
    outcomes: dict[str, int]
    tokens_in: int | None
    tokens_out: int | None
    cost: float | None
    latency_s: float | None


@dataclass(frozen=True)
class RoleResult:
    """The runs of one role over seeds; `mean` and `spread` over those that have a fitness."""

    role: str
    label: str
    runs: tuple[Run, ...]
    values: tuple[float, ...]
    mean: float | None
    spread: float | None


def state_of(record: SearchRecord) -> str:
    """ "finished", "stopped" (it said that it stopped early) or "running" (no end is recorded)."""
    if record.finished:
        return "finished"
    if record.meta.get("state") in ("finished", "stopped"):
        return record.meta["state"]
    if record.events and record.events[-1][1] == "stopped":
        return "stopped"
    return "running"


def generation_stories(record: SearchRecord, unit: str) -> list[GenerationStory]:
    """For every generation that was begun: did the best held-out fitness improve, or plainly not."""
    told: list[tuple[Generation, Generation | None]] = []  # each with the one that was best before it
    before: Generation | None = None
    for generation in record.counts.generations:
        told.append((generation, before))
        before = generation if _improved(generation, before) else before
    if not record.whole:
        improved = [pair for pair in told[:-STORIES] if _improved(*pair)]
        told = improved[-STORIES:] + told[-STORIES:]
    return [_story(generation, before, unit, record.feedback.get(generation.number, "")) for generation, before in told]


def _improved(generation: Generation, before: Generation | None) -> bool:
    return generation.fitness is not None and (before is None or generation.fitness > (before.fitness or 0.0))


def _story(generation: Generation, before: Generation | None, unit: str, said: str) -> GenerationStory:
    members = sum(generation.statuses.values())
    open_ones = sum(many for status, many in generation.statuses.items() if not Status(status).settled)
    stopped = generation.statuses.get(Status.ELIMINATED.value, 0)
    so_far = f"the best so far stays {before.best_id} with {_with_unit(before.fitness, unit)}" if before else ""
    reached = _with_unit(generation.fitness, unit)
    if generation.fitness is None:
        verdict, sentence = "nothing", f"none of {_several(members)} got a fitness"
        sentence += f"; {so_far}" if so_far else "; there is no best reward yet"
    elif before is None:
        verdict = "first"
        sentence = f"the best of {_several(members)}, {generation.best_id}, reached {reached}"
    elif _improved(generation, before):
        gain = generation.fitness - (before.fitness or 0.0)
        verdict = "improved"
        sentence = (
            f"the best fitness improved from {format_number(before.fitness)} to {reached} "
            f"(+{format_number(gain)}) with {generation.best_id}"
        )
    else:
        verdict = "not improved"
        sentence = f"the best fitness did not improve: {generation.best_id} reached {reached}, and {so_far}"
    if stopped:
        sentence += f"; {stopped} {'were' if stopped > 1 else 'was'} stopped early"
    if open_ones:
        sentence = f"{open_ones} of {_several(members)} not finished; up to now {sentence}"
        verdict = verdict if verdict == "improved" else "running"
    return GenerationStory(generation.number, verdict, sentence[0].upper() + sentence[1:] + ".", said)


def _several(members: int) -> str:
    return f"{members} candidate{'s' if members != 1 else ''}"


def _with_unit(value: float | None, unit: str) -> str:
    return f"{format_number(value)} {unit}".strip()


def lineage(candidates: tuple[Candidate, ...], last: Candidate) -> list[Candidate]:
    """The way from the first ancestor to `last`, itself included; stops at a parent that is unknown."""
    by_id = {candidate.candidate_id: candidate for candidate in candidates}
    path: list[Candidate] = []
    current: Candidate | None = last
    while current is not None and current not in path:
        path.append(current)
        current = by_id.get(current.parent_id or "")
    return path[::-1]


def failure_kind(candidate: Candidate) -> str:
    """How a candidate failed: "refused at check", "no reply", or the status of its training's result."""
    if candidate.status is Status.REFUSED:
        return f"refused at {candidate.stage or 'the gate'}"
    if candidate.status is Status.NO_REPLY:
        return "no reply"
    result = str((candidate.result or {}).get("status") or candidate.stage or "error")
    return "error" if result in ("ok", "accepted") else result


def first_line(candidate: Candidate) -> str:
    """The line that says best why a candidate failed; "" where nothing was recorded."""
    error = (candidate.result or {}).get("error")
    if candidate.status is Status.FAILED and isinstance(error, dict):
        place = f" (line {error['line']})" if error.get("line") else ""
        return f"{error.get('type', 'error')}: {error.get('message', '')}{place}"
    lines = [line.strip() for line in (candidate.error or "").splitlines() if line.strip()]
    problems = [line for line in lines if re.match(r"\d+\. ", line)]  # as the gate numbers them
    if not problems:
        return lines[0] if lines else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0].partition(" ")[2] + more


def failure_groups(record: SearchRecord) -> list[FailureGroup]:
    """Failed candidates by the way they failed, the most frequent first."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for candidate in record.candidates:
        if candidate.status in (Status.REFUSED, Status.NO_REPLY, Status.FAILED):
            groups.setdefault(failure_kind(candidate), []).append((candidate.candidate_id, first_line(candidate)))
    numbers = Counter({kind: len(cases) for kind, cases in groups.items()})
    if not record.whole:
        numbers.clear()
        for (status, stage), many in record.counts.failures.items():
            numbers[failure_kind(Candidate("", 0, 0, status=Status(status), stage=stage))] += many
    order = sorted(numbers, key=lambda kind: (-numbers[kind], kind))
    return [
        FailureGroup(kind.replace("_", " "), MEANINGS.get(kind, ""), tuple(groups.get(kind, ())), numbers[kind])
        for kind in order
    ]


def spending(record: SearchRecord) -> list[Spending]:
    """Asks, replies, tokens and cost per generation, and a last row over all; of a long search the last generations."""
    generation_of = {candidate.candidate_id: candidate.generation for candidate in record.candidates}
    rows: list[tuple[int | None, dict | None]] = [
        (generation_of.get(candidate_id), attempt.reply)
        for candidate_id, attempts in record.attempts.items()
        for attempt in attempts
    ]
    of_generation: dict[int, list[dict | None]] = {}
    for generation, reply in rows:
        if generation is not None and generation >= record.choice.whole_from:
            of_generation.setdefault(generation, []).append(reply)
    parts = [_spending(generation, of_generation[generation]) for generation in sorted(of_generation)]
    return [*parts, _spending(None, [reply for _, reply in rows]) if record.whole else _spending_of_all(record)]


def _spending_of_all(record: SearchRecord) -> Spending:
    """The last row of a search of which not every request was read."""
    groups = record.counts.replies
    outcomes: Counter[str] = Counter()
    for group in groups:
        outcomes[str(group["outcome"])] += group["number"]
    sums = {key: _total(list(groups), key) for key in ("tokens_in", "tokens_out", "cost", "latency_s")}
    return Spending(
        generation=None,
        asks=record.counts.asks,
        replies=outcomes.total(),
        outcomes=dict(sorted(outcomes.items(), key=lambda item: (-item[1], item[0]))),
        tokens_in=None if sums["tokens_in"] is None else int(sums["tokens_in"]),
        tokens_out=None if sums["tokens_out"] is None else int(sums["tokens_out"]),
        cost=sums["cost"],
        latency_s=sums["latency_s"],
    )


def _spending(generation: int | None, replies: list[dict | None]) -> Spending:
    arrived = [reply for reply in replies if reply is not None]
    tokens_in, tokens_out = _total(arrived, "tokens_in"), _total(arrived, "tokens_out")
    return Spending(
        generation=generation,
        asks=len(replies),
        replies=len(arrived),
        outcomes=dict(Counter(str(reply["outcome"]) for reply in arrived).most_common()),
        tokens_in=None if tokens_in is None else int(tokens_in),
        tokens_out=None if tokens_out is None else int(tokens_out),
        cost=_total(arrived, "cost"),
        latency_s=_total(arrived, "latency_s"),
    )


def _total(replies: list[dict], key: str) -> float | None:
    known = [value for value in (number(reply.get(key)) for reply in replies) if value is not None]
    return sum(known) if known else None


def role_results(record: SearchRecord) -> dict[str, RoleResult]:
    """ "final", "human" and "sparse" over their seeds; roles without a run have no values."""
    return {role: _role_result(role, record.runs_of_role(role)) for role in ROLES}


def _role_result(role: str, runs: list[Run]) -> RoleResult:
    values = tuple(run.fitness for run in runs if run.status == "ok" and run.fitness is not None)
    if any(not math.isfinite(value) for value in values):
        return RoleResult(role, ROLES[role], tuple(runs), values, math.nan, None)
    told = over_seeds(values)
    return RoleResult(role, ROLES[role], tuple(runs), values, told and told.mean, told and told.std)


def normalised_score(results: dict[str, RoleResult]) -> Score | None:
    """The best reward's human-normalised score with its spread over seeds.

    None while a baseline or every final run is missing, where human and sparse are equal, or where a fitness is NaN.
    """
    values = [results[role].values for role in ("final", "human", "sparse")]
    return human_normalised(*values) if all(math.isfinite(v) for per_role in values for v in per_role) else None


def comparison(results: dict[str, RoleResult]) -> str:
    """How the best reward stands to human and sparse, as the rest of a sentence; "" while there is nothing to compare.

    Two rewards are level when their means differ by no more than the larger of their spreads over seeds.
    """
    final = results["final"]
    words = [_standing(final, results[role]) for role in ("human", "sparse") if results[role].mean is not None]
    return " and ".join(words) if final.mean is not None and math.isfinite(final.mean) else ""


def _standing(final: RoleResult, other: RoleResult) -> str:
    difference = (final.mean or 0.0) - (other.mean or 0.0)
    name = f"the {other.role} one"
    if math.isnan(difference):
        return f"cannot be compared with {name}"
    if abs(difference) <= max(final.spread or 0.0, other.spread or 0.0):
        return f"is level with {name} within the spread over seeds"
    return f"does better than {name}" if difference > 0 else f"stays below {name}"


def best_lines(generations: tuple[Generation, ...]) -> dict[int, float]:
    """Generation -> best fitness up to and including it; generations before the first score are left out."""
    lines: dict[int, float] = {}
    highest: float | None = None
    for generation in generations:
        if generation.fitness is not None and (highest is None or generation.fitness > highest):
            highest = generation.fitness
        if highest is not None:
            lines[generation.number] = highest
    return lines
