"""One generation's reward programs: ask, judge, repair.

Prompts are stored before they are sent and replies before they are read, so a search that dies pays for no reply
twice: on resume a stored reply is judged again (the gate's verdict is a function of the reply) instead of asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eureka import prompts
from eureka.archive import Archive
from eureka.candidate import Candidate, Status, ask_id, candidate_id
from eureka.designers.base import Ask, DesignContext, Designer, DesignerStopped, Reply, StoringDesigner
from eureka.disk import Patience
from eureka.listener import Listener
from rewards.gate import Verdict, admit_many
from rl.record import read_json, write_atomic, write_json_atomic
from tasks.errors import UserError
from tasks.signals import Signals, SignalTable

GRAPH_FILE = "reward_graph.json"
"""In a candidate's folder: the graph that the gate made of its program."""
OUTAGES = ("rate_limited", "server", "network", "timeout")
"""Outcomes that say nothing about the reply asked for."""


@dataclass(frozen=True)
class Gate:
    """The reward gate of one task: its signals, and real states to try programs on."""

    table: SignalTable
    samples: tuple[Signals, ...]
    """Signals of real rollouts at different numbers of worlds."""
    num_envs: int = 0
    """Worlds of the trainings: memory and work of a program are bounded there. 0: as the gate itself does."""

    def judge(self, replies: dict[str, Reply]) -> dict[str, Verdict]:
        """Verdicts by ask id on replies by ask id; one trial process for all."""
        order = list(replies)
        texts = [replies[name].text or "" for name in order]
        verdicts = admit_many(texts, self.table, self.samples, num_envs=self.num_envs)
        return dict(zip(order, verdicts, strict=True))


def propose(
    candidates: Sequence[Candidate],
    first_asks: dict[str, Ask],
    *,
    designer: Designer,
    gate: Gate,
    archive: Archive,
    repairs: int,
    folder: Path,
    listener: Listener,
    patience: Patience | None = None,
) -> list[Candidate]:
    """Turn proposed candidates into accepted or refused ones.

    Args:
        candidates: Those of one generation; settled ones are passed through.
        first_asks: The first request of each candidate that is not settled, by candidate id.
        designer: Who writes.
        gate: Who judges.
        archive: Where asks, replies and verdicts go.
        repairs: How often a broken program may be repaired.
        folder: The search folder; reward.py, prompt.md and reply.md are written below `candidates/`.
        listener: Told of replies and verdicts.
        patience: Waits where the disk is full; without it a full disk is an error.

    Returns:
        All candidates, judged.

    Raises:
        DesignerStopped: the designer cannot go on, or gave nothing but outages, of which none is kept, so that a resume
            asks again. What had arrived is stored.
    """
    judged = {c.candidate_id: c for c in candidates if c.status is not Status.PROPOSED}
    open_asks = {c.candidate_id: first_asks[c.candidate_id] for c in candidates if c.status is Status.PROPOSED}
    for attempt in range(repairs + 1):
        if not open_asks:
            break
        replies = _replies(list(open_asks.values()), designer, archive, listener)
        usable = {name: reply for name, reply in replies.items() if reply.usable}
        verdicts = gate.judge(usable)
        next_asks: dict[str, Ask] = {}
        for name, ask in open_asks.items():
            candidate = next(c for c in candidates if c.candidate_id == name)
            reply, verdict = replies[ask.ask_id], verdicts.get(ask.ask_id)
            if (verdict is None or not verdict.accepted) and attempt < repairs:
                next_asks[name] = _repair(ask, reply, verdict)
                continue
            judged[name] = _settle(candidate, reply, verdict, attempt)
            write_files = partial(_write_files, folder, judged[name], ask, reply, verdict)
            if patience is None:
                write_files()
            else:
                patience.until_done(f"candidates/{name}", write_files)
            archive.put_candidate(judged[name])
            listener.judged(judged[name])
        open_asks = next_asks
    return [judged[c.candidate_id] for c in candidates]


def stored_graph(folder: Path, candidate: str) -> dict[str, Any] | None:
    """The graph of an accepted candidate; None where its file was never written or is damaged: a training then has
    the program traced again, which gives the same graph."""
    try:
        data = read_json(folder / "candidates" / candidate / GRAPH_FILE)
    except UserError:
        return None
    return data if isinstance(data, dict) else None


def first_ask(context: DesignContext, view: prompts.TaskView, remembered: prompts.Remembered | None = None) -> Ask:
    """The first request for one candidate: from nothing in generation 1, from the best so far afterwards.

    `remembered` is what follows from the context's history and best, where it is known.
    """
    name = candidate_id(context.generation, context.index)
    place, samples, history = context.index, context.samples, context.history
    if context.best is None:
        messages = prompts.initial_messages(view, index=place, samples=samples, history=history, remembered=remembered)
    else:
        messages = prompts.next_messages(
            view,
            best=context.best,
            history=history,
            index=place,
            samples=samples,
            remembered=remembered,
            feedback=context.feedback,
        )
    return Ask(ask_id(name, 0), name, 0, messages, context)


def _repair(ask: Ask, reply: Reply, verdict: Verdict | None) -> Ask:
    """The next request after a broken reply: the same conversation with the reply and what is wrong with it."""
    attempt = ask.attempt + 1
    if verdict is None:  # no text to repair: ask the same again
        return dataclasses.replace(ask, ask_id=ask_id(ask.candidate_id, attempt), attempt=attempt)
    problems = verdict.explain()
    messages = prompts.repair_messages(ask.messages, reply=reply.text or "", problems=problems)
    return dataclasses.replace(
        ask,
        ask_id=ask_id(ask.candidate_id, attempt),
        attempt=attempt,
        messages=messages,
        previous=reply.text,
        problems=problems,
    )


def _replies(asks: Sequence[Ask], designer: Designer, archive: Archive, listener: Listener) -> dict[str, Reply]:
    """A reply for each ask, by ask id: the stored one, else the designer's, which is stored as it arrives."""
    known = archive.replies(sorted({ask.ask_id for ask in asks}.union(_attempt(asks))))
    if all(ask.ask_id in known for ask in asks) and _only_outages(asks, known):
        # A kill came before these were dropped, below.
        archive.drop_replies(ask.ask_id for ask in asks)
        known = {}
    missing = [ask for ask in asks if ask.ask_id not in known]
    archive.add_asks(missing)
    wanted = {ask.ask_id for ask in missing}
    arrived: dict[str, Reply] = {}

    def on_reply(reply: Reply) -> None:
        if reply.ask_id not in wanted or reply.ask_id in arrived:
            raise ValueError(f"designer '{designer.name}' answered '{reply.ask_id}', which was not asked for or twice")
        arrived[reply.ask_id] = reply
        archive.add_reply(reply)
        listener.reply_arrived(reply)

    if isinstance(designer, StoringDesigner):
        designer.store_in(archive)
    if missing:
        designer.answer(missing, on_reply)
        unanswered = sorted(wanted - set(arrived))
        if unanswered:
            raise UserError(
                f"designer '{designer.name}' gave no answer to {', '.join(unanswered)}; resume to ask again."
            )
        if _only_outages(asks, {**known, **arrived}):
            archive.drop_replies(ask.ask_id for ask in asks)
            first = next(iter(arrived.values()))
            raise DesignerStopped(
                f"designer '{designer.name}': no reply arrived ({first.outcome}: {first.error}); "
                "the search is kept, resume it when the endpoint answers again.",
                first.outcome,
            )
    return {ask.ask_id: arrived.get(ask.ask_id) or known[ask.ask_id] for ask in asks}


def _only_outages(asks: Sequence[Ask], replies: dict[str, Reply]) -> bool:
    """Whether a generation's attempt brought nothing but outages; replies to asks of it that are settled count too."""
    names = {ask.ask_id for ask in asks}.union(name for name in _attempt(asks) if name in replies)
    return all(replies[name].outcome in OUTAGES for name in names)


def _attempt(asks: Sequence[Ask]) -> list[str]:
    """Ids of all asks of the generation's attempt that these belong to, those that are settled included."""
    return [
        ask_id(candidate_id(ask.context.generation, index), ask.attempt)
        for ask in asks[:1]
        for index in range(ask.context.samples)
    ]


def _settle(candidate: Candidate, reply: Reply, verdict: Verdict | None, attempt: int) -> Candidate:
    if verdict is None:
        error = f"no program arrived ({reply.outcome}): {reply.error or 'the reply is empty'}"
        return dataclasses.replace(candidate, status=Status.NO_REPLY, error=error, repairs=attempt)
    return dataclasses.replace(
        candidate,
        status=Status.ACCEPTED if verdict.accepted else Status.REFUSED,
        source=verdict.source.text if verdict.source else None,
        reward_sha256=verdict.source.sha256 if verdict.source else None,
        stage=verdict.stage,
        error=None if verdict.accepted else verdict.explain(),
        repairs=attempt,
    )


def _write_files(folder: Path, candidate: Candidate, ask: Ask, reply: Reply, verdict: Verdict | None) -> None:
    """reward.py, prompt.md and reply.md of a candidate, the last attempt's, for people to read; and its graph, which
    is what trains."""
    place = folder / "candidates" / candidate.candidate_id
    place.mkdir(parents=True, exist_ok=True)
    write_atomic(place / "prompt.md", prompts.as_markdown(ask.messages).encode())
    write_atomic(place / "reply.md", (reply.text or f"(no text: {reply.outcome} {reply.error or ''})").encode())
    if candidate.source is not None:
        write_atomic(place / "reward.py", candidate.source.encode())
    if verdict is not None and verdict.graph is not None:
        write_json_atomic(place / GRAPH_FILE, verdict.graph)
