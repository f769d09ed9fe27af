"""An endpoint that is down, for good or for a while: few requests, no ask given up for it, the search resumable."""

from __future__ import annotations

import itertools
import random
import socket
import time
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.designers.base import Ask, DesignContext, DesignerConfig, DesignerStopped, Message, Reply
from eureka.designers.openai import OpenAIDesigner
from eureka.designers.retrying import BackOff, Breaker
from tasks.errors import UserError
from tasks.signals import Signal, SignalTable
from tests.eureka.chat_server import KEY, Behaviour, ChatServer, Request, error, html, reply
from tests.eureka.endpoint_faults import CODE
from tests.eureka.endpoint_round import prompts, search_round

CONTEXT = DesignContext("t", "move", SignalTable([Signal("actions", 2, "1", "joint", "action", "actions")]))


def asks(count: int) -> list[Ask]:
    names = [f"g01_c{index:02d}" for index in range(count)]
    return [Ask(f"{name}_r0", name, 0, (Message("user", f"write {name}"),), CONTEXT) for name in names]


def designer(base_url: str, breaker: Breaker | None = None, **settings) -> OpenAIDesigner:
    given = {"request_timeout_s": 10.0, "ask_deadline_s": 20.0, "retries": 5, "parallel": 4, **settings}
    config = DesignerConfig(designer="openai", model="loop-1", base_url=base_url, **given)
    return OpenAIDesigner(config, back_off=BackOff(0.01, 1.5, 0.05), breaker=breaker, api_key=KEY)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_the_breaker_opens_after_failures_of_several_asks_and_doubles_its_pause() -> None:
    breaker = Breaker(limit=3, first_s=2.0, longest_s=5.0)
    for moment in range(10):
        breaker.failed("a", moment)
    assert not breaker.is_open, "one ask alone may be at fault itself"
    breaker.failed("b", 10.0)
    assert breaker.is_open and breaker.pause_until == 12.0
    breaker.failed("c", 11.0)  # was in flight when it opened
    assert breaker.pause_until == 12.0
    breaker.failed("a", 12.0)
    assert breaker.pause_until == 16.0
    breaker.failed("a", 16.0)
    assert breaker.pause_until == 21.0
    breaker.answered()
    assert not breaker.is_open and breaker.pause_until == 0.0
    breaker.failed("a", 30.0)
    breaker.failed("b", 30.0)
    assert not breaker.is_open, "failures before an answer do not count after it"


def test_waits_grow_with_jitter_up_to_their_longest() -> None:
    back_off = BackOff(first_s=1.0, factor=2.0, longest_s=10.0)
    waits = [[back_off.wait_s(attempt, random.Random(seed)) for attempt in (0, 1, 2, 9, 5000)] for seed in range(200)]
    for column, full in zip(zip(*waits, strict=True), (1.0, 2.0, 4.0, 10.0, 10.0), strict=True):
        assert 0.5 * full <= min(column) < 0.6 * full and 0.9 * full < max(column) <= full


@pytest.mark.parametrize("kind", ["refused connections", "500", "web pages"])
def test_an_endpoint_that_is_down_stops_the_search_with_few_requests(kind: str) -> None:
    """Twelve asks with six tries each would be 72 requests."""
    down = {"500": error(500), "web pages": html()}.get(kind, error(500))
    replies: list[Reply] = []
    with ChatServer(default=down) as server:
        url = server.base_url if kind != "refused connections" else f"http://127.0.0.1:{closed_port()}/v1"
        started = time.monotonic()
        with pytest.raises(DesignerStopped, match=r"requests in a row failed: go on with --resume") as stopped:
            designer(url, Breaker(first_s=0.05, longest_s=0.1)).answer(asks(12), replies.append)
        assert time.monotonic() - started < 60
        assert "\n" not in str(stopped.value)
        assert (
            len(server.requests) <= 54
        )  # how many are on their way when the breaker opens depends on the machine; 72 without
    # A web page is no answer worth a second try: the first few are given up before it is known that all are like it.
    assert len(replies) <= (5 if kind == "web pages" else 0)


def test_an_endpoint_that_comes_back_is_found_by_single_requests() -> None:
    """Down for its first ten requests: no reply is lost, and while it is down they come one by one."""
    with ChatServer([error(503)] * 10, default=lambda request: reply(request.prompt)) as server:
        replies: list[Reply] = []
        designer(server.base_url, Breaker(limit=4, first_s=0.1, longest_s=0.2)).answer(asks(8), replies.append)
        times = [request.time_s for request in server.requests]
    assert sorted((r.ask_id, r.text) for r in replies) == [
        (f"g01_c{i:02d}_r0", f"write g01_c{i:02d}") for i in range(8)
    ]
    # Four may be in flight when it opens; those after them are probes, a pause apart.
    probes = times[7:11]
    assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(probes))


def test_one_ask_that_always_fails_does_not_stop_the_others() -> None:
    def poisoned(request: Request) -> Behaviour:
        return error(500) if request.prompt.endswith("07") else reply("fine")

    replies: list[Reply] = []
    with ChatServer(default=poisoned) as server:
        designer(server.base_url, parallel=1).answer(asks(8), replies.append)
    assert {r.ask_id: r.outcome for r in replies} == {
        f"g01_c{i:02d}_r0": "server" if i == 7 else "ok" for i in range(8)
    }


def test_refused_connections_leave_the_search_as_it_was(tmp_path: Path) -> None:
    """Nothing listens there: one line, no candidate settled, and everything is asked when it does."""
    with ChatServer(default=reply(CODE)) as server:
        gone = ChatServer()
        gone._server.server_close()
        started = time.monotonic()
        with pytest.raises(UserError, match=r"network: connection failed .*resume") as stopped:
            search_round(tmp_path, gone)
        assert time.monotonic() - started < 60
        assert "\n" not in str(stopped.value)
        archive = Archive(tmp_path / "search.db", create=False)
        assert archive.replies() == {} and archive.candidates() == []
        assert [e.status for e in archive.exchanges("g01_c01_r0")] == [None, None]
        archive.close()
        judged = search_round(tmp_path, server)
        assert prompts(server) == ["write g01_c00", "write g01_c01"]
    assert {str(c.status) for c in judged.values()} == {"accepted"}


def test_a_hung_tls_handshake_ends_in_time() -> None:
    """The other side takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        replies: list[Reply] = []
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/v1"
        started = time.monotonic()
        designer(url, retries=0, request_timeout_s=0.5).answer(asks(1), replies.append)
        assert time.monotonic() - started < 30
    assert [r.outcome for r in replies] == ["timeout"]


def test_a_spent_budget_stops_also_while_the_endpoint_asks_to_wait() -> None:
    """The first reply spends the budget, the second asks for a pause: nothing is waited for."""
    with ChatServer([reply("there"), error(429, headers={"Retry-After": "200"})]) as server:
        replies: list[Reply] = []
        started = time.monotonic()
        with pytest.raises(DesignerStopped, match="--max-tokens-total"):
            designer(server.base_url, parallel=2, max_tokens_total=150, ask_deadline_s=400.0).answer(
                asks(4), replies.append
            )
        assert time.monotonic() - started < 60
    assert len(replies) == 1


def test_a_deadline_holds_over_all_tries() -> None:
    """Each try hangs for 0.3 s; a hundred are allowed; 1 s is the limit of all."""
    with ChatServer(default=Behaviour(body=reply("late").body, delay_s=60)) as server:
        replies: list[Reply] = []
        started = time.monotonic()
        designer(server.base_url, retries=100, request_timeout_s=0.3, ask_deadline_s=1.0).answer(
            asks(1), replies.append
        )
        assert 0.8 < time.monotonic() - started < 25
    assert [r.outcome for r in replies] == ["timeout"]
    assert len(server.requests) <= 5
