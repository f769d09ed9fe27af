"""Outages say nothing about a candidate, also where a kill came between them and their dropping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.candidate import ask_id, candidate_id
from eureka.designers.base import Ask, DesignContext, DesignerStopped, Message, Outcome, Reply
from eureka.listener import Listener
from eureka.proposing import _replies
from tasks.signals import Signal, SignalTable

SAMPLES = 3


def ask(index: int, attempt: int = 0) -> Ask:
    context = DesignContext(
        "slider",
        "",
        SignalTable([Signal("x", 1, "m", "world", "position", "")]),
        generation=1,
        index=index,
        samples=SAMPLES,
    )
    name = candidate_id(1, index)
    return Ask(ask_id(name, attempt), name, attempt, (Message("user", "write"),), context)


def reply(asked: Ask, outcome: Outcome) -> Reply:
    return Reply(asked.ask_id, "code" if outcome == "ok" else None, outcome, error=None if outcome == "ok" else "down")


class Endpoint:
    """Answers every ask with one outcome."""

    name = "endpoint"

    def __init__(self, outcome: Outcome) -> None:
        self.outcome: Outcome = outcome
        self.asked: list[str] = []

    def check(self) -> None:
        """Nothing."""

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """See the class."""
        for each in asks:
            self.asked.append(each.ask_id)
            on_reply(reply(each, self.outcome))


@pytest.fixture
def archive(tmp_path: Path):
    archive = Archive(tmp_path / "search.db")
    archive.add_asks([ask(index) for index in range(SAMPLES)])
    yield archive
    archive.close()


def test_outages_that_a_kill_kept_are_asked_for_again(archive):
    """All of an attempt were down, and the search was killed before it could drop them."""
    asks = [ask(index) for index in range(SAMPLES)]
    for each in asks:
        archive.add_reply(reply(each, "network"))
    endpoint = Endpoint("ok")
    found = _replies(asks, endpoint, archive, Listener())
    assert endpoint.asked == [each.ask_id for each in asks]
    assert {r.outcome for r in found.values()} == {"ok"} == {r.outcome for r in archive.replies().values()}


def test_outages_of_before_and_after_a_kill_are_dropped_together(archive):
    """Two had come before it, the third comes after: the endpoint is down, and nothing of it is kept."""
    asks = [ask(index) for index in range(SAMPLES)]
    for each in asks[:2]:
        archive.add_reply(reply(each, "timeout"))
    endpoint = Endpoint("server")
    with pytest.raises(DesignerStopped, match="no reply arrived"):
        _replies(asks, endpoint, archive, Listener())
    assert endpoint.asked == [asks[2].ask_id] and archive.replies() == {}


def test_an_outage_among_answers_stays_after_a_resume(archive):
    """The others of its attempt are settled and no longer asked for; their answers say that the endpoint was there."""
    for each, outcome in ((ask(0), "ok"), (ask(1), "network"), (ask(2), "ok")):
        archive.add_reply(reply(each, outcome))
    endpoint = Endpoint("ok")
    found = _replies([ask(1)], endpoint, archive, Listener())
    assert endpoint.asked == [] and found["g01_c01_r0"].outcome == "network"
