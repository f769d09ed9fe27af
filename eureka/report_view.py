"""What the report's templates fill in for each candidate, each final run and the video: plain objects, all text ready.

Only `Markup` built by our own functions is inserted as it is; everything else is escaped by the templates.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from eureka.candidate import Candidate, Status
from eureka.report_charts import Dot
from eureka.report_curves import Curve, component_names, training_curves
from eureka.report_data import Attempt, Run, SearchRecord, number
from eureka.report_story import first_line
from eureka.report_text import DASH, diff_size, format_count, format_number, format_spread, highlight, unified_diff
from rl.record import METRICS, read_json, read_metrics
from tasks.errors import UserError

EMBED_LIMIT_BYTES = 12_000_000
"""A larger video is linked: the page shall open at once, base64 adds a third."""
LONG_MESSAGE = 600
"""Characters from which a message that the page already shows is linked, not repeated."""

STATUS_TEXT = {"no_reply": "no reply", "eliminated": "stopped early"}


@dataclass(frozen=True)
class MessageView:
    """One message of a prompt; `same_as` is the anchor of the identical message shown before, if any."""

    anchor: str
    role: str
    content: str
    same_as: str | None


@dataclass(frozen=True)
class AttemptView:
    """One request and its reply."""

    ask_id: str
    attempt: int
    messages: tuple[MessageView, ...]
    reply: Mapping[str, Any] | None
    facts: str


@dataclass(frozen=True)
class CandidateView:
    """One candidate's row and what it expands to."""

    candidate: Candidate
    status: str
    fitness: str
    episode_length_s: float | None
    components: tuple[str, ...]
    tokens: int | None
    wall_s: float | None
    steps: int | None
    run: Run | None
    program: Markup
    diff: tuple[tuple[str, str], ...]
    diff_size: tuple[int, int]
    curves: tuple[Curve, ...]
    trouble: str
    attempts: tuple[AttemptView, ...]
    tip: str
    detailed: bool
    """Whether program, difference, curves and conversation are there."""

    @property
    def id(self) -> str:
        """The candidate's id."""
        return self.candidate.candidate_id

    @property
    def at_rung(self) -> str:
        """Fitness where its training was stopped, and after how many iterations; "" where it was not."""
        if self.candidate.status is not Status.ELIMINATED:
            return ""
        iterations = (self.candidate.result or {}).get("iterations")
        return f"{format_number(self.candidate.rung_fitness)} after iteration {format_count(number(iterations))}"


@dataclass(frozen=True)
class VideoView:
    """The page's video: its data: URI, or the relative path where it is too large, and whose policy it shows."""

    uri: str | None
    link: str
    megabytes: float
    caption: str


def candidate_views(record: SearchRecord, unit: str) -> list[CandidateView]:
    """The views of all candidates, in the order of their ids."""
    by_id = {candidate.candidate_id: candidate for candidate in record.candidates}
    shown: dict[str, str] = {}
    return [_candidate_view(record, candidate, by_id, unit, shown) for candidate in record.candidates]


def _candidate_view(
    record: SearchRecord,
    candidate: Candidate,
    by_id: Mapping[str, Candidate],
    unit: str,
    shown: dict[str, str],
) -> CandidateView:
    run = record.run_of(candidate.equal_to or candidate.candidate_id)
    result = candidate.result or (run.result if run else {})
    detailed = candidate.candidate_id in record.choice.detailed
    metrics, damage = _metrics(run) if detailed else ([], "")
    parent = by_id.get(candidate.parent_id or "")
    rows: list[tuple[str, str]] = []
    if detailed and candidate.source and parent and parent.source:
        rows = unified_diff(parent.source, candidate.source, parent.candidate_id, candidate.candidate_id)
    fitness = format_spread(candidate.fitness, candidate.fitness_std)
    evaluation = result.get("eval") or {}
    status = STATUS_TEXT.get(candidate.status.value, candidate.status.value)
    return CandidateView(
        candidate=candidate,
        status=status,
        fitness=fitness,
        episode_length_s=number(evaluation.get("episode_length_s")),
        components=tuple(component_names(metrics)),
        tokens=_tokens(record.attempts.get(candidate.candidate_id, ())),
        wall_s=number(result.get("wall_s")) or (number(metrics[-1].get("wall_s")) if metrics else None),
        steps=int(metrics[-1]["iteration"]) if metrics else None,
        run=run,
        program=highlight(candidate.source) if detailed and candidate.source else Markup(""),
        diff=tuple(rows),
        diff_size=diff_size(rows),
        curves=tuple(training_curves(metrics, unit)),
        trouble="\n\n".join(part for part in (_reason(candidate), damage) if part and detailed),
        attempts=tuple(_attempt_view(a, shown) for a in record.attempts.get(candidate.candidate_id, ()) if detailed),
        tip=f"{candidate.candidate_id}: " + (f"{fitness} {unit}".strip() if fitness != DASH else f"{status}, no score"),
        detailed=detailed,
    )


def _reason(candidate: Candidate) -> str:
    """The full text of why a candidate failed, with the error's type and line where its training names them."""
    message = str(((candidate.result or {}).get("error") or {}).get("message") or "")
    if candidate.status is not Status.FAILED or not message:
        return candidate.error or ""
    told = first_line(candidate)
    return told if message in (candidate.error or message) else f"{told}\n\n{candidate.error}"


def _metrics(run: Run | None) -> tuple[list[dict[str, Any]], str]:
    """A run's metrics, and what is wrong with them; one damaged file takes nothing else from the page."""
    if run is None:
        return [], ""
    try:
        return read_metrics(run.folder / METRICS), ""
    except UserError as error:
        return [], str(error)


def _tokens(attempts: tuple[Attempt, ...]) -> int | None:
    known = [
        int(attempt.reply[key])
        for attempt in attempts
        if attempt.reply is not None
        for key in ("tokens_in", "tokens_out")
        if attempt.reply.get(key) is not None
    ]
    return sum(known) if known else None


def _attempt_view(attempt: Attempt, shown: dict[str, str]) -> AttemptView:
    messages = []
    for position, (role, content) in enumerate(attempt.messages):
        anchor = f"m-{attempt.ask_id}-{position}"
        same_as = shown.get(content) if len(content) >= LONG_MESSAGE else None
        shown.setdefault(content, anchor)
        messages.append(MessageView(anchor, role, content, same_as))
    return AttemptView(attempt.ask_id, attempt.attempt, tuple(messages), attempt.reply, _reply_facts(attempt.reply))


def _reply_facts(reply: Mapping[str, Any] | None) -> str:
    if reply is None:
        return "no reply yet"
    facts = [str(reply["outcome"]).replace("_", " ")]
    if reply.get("model"):
        facts.append(str(reply["model"]))
    if reply.get("tokens_in") is not None or reply.get("tokens_out") is not None:
        facts.append(f"{reply.get('tokens_in') or 0:,} tokens in, {reply.get('tokens_out') or 0:,} out")
    if reply.get("latency_s") is not None:
        facts.append(f"{format_number(reply['latency_s'])} s")
    return " · ".join(facts)


def dots(views: list[CandidateView], best_id: str | None) -> list[Dot]:
    """The views as marks of the fitness chart."""
    kinds = {view.id: "" if view.candidate.status.settled else "pending" for view in views}
    if best_id is not None:
        kinds[best_id] = "best"
    return [Dot(v.id, v.candidate.generation, v.candidate.fitness, v.tip, kinds[v.id]) for v in views]


def find_video(record: SearchRecord, best: Candidate | None, unit: str) -> VideoView | None:
    """best/video.mp4, else the video of the best final run that has one, else of the best candidate's training."""
    path = record.folder / "best" / "video.mp4"
    if path.is_file():
        return _video_view(record.folder, path, _best_caption(path.with_name("best.json"), unit))
    finals = sorted(record.runs_of_role("final"), key=lambda run: -(run.fitness or 0.0) if run.scored else math.inf)
    own = record.run_of(best.candidate_id) if best else None
    for run, words in [
        *((run, f"best reward, fresh seed {run.seed}") for run in finals),
        (own, "best candidate"),
    ]:
        if run and (path := _video_path(run)):
            told = f"{words}: {format_number(run.fitness)} {unit}".strip() if run.fitness is not None else words
            return _video_view(record.folder, path, told)
    return None


def _best_caption(path: Path, unit: str) -> str:
    told = read_json(path) if path.is_file() else {}
    words = f"best reward ({told['run_id']})" if told.get("run_id") else "best reward"
    fitness = number(told.get("fitness"))
    return words if fitness is None else f"{words}: {format_number(fitness)} {unit}".strip()


def _video_path(run: Run) -> Path | None:
    path = run.folder / Path(str(run.result.get("video") or "video.mp4")).name
    return path if path.is_file() else None


def _video_view(folder: Path, path: Path, caption: str) -> VideoView:
    size = path.stat().st_size
    uri = None
    if size <= EMBED_LIMIT_BYTES:
        uri = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    link = quote(Path(os.path.relpath(path, folder)).as_posix())  # runs of baselines lie beside the search's folder
    return VideoView(uri, link, size / 1e6, caption)
