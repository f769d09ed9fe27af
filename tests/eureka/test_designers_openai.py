"""The openai designer against a real HTTP server on loopback: every outcome, in bounded time, by id."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from eureka.designers import chat
from eureka.designers.base import Ask, DesignContext, DesignerConfig, DesignerStopped, Message, Reply
from eureka.designers.openai import OpenAIDesigner
from eureka.designers.retrying import BackOff
from tasks.errors import UserError
from tasks.signals import Signal, SignalTable
from tests.eureka.chat_server import KEY, Behaviour, ChatServer, Request, completion, drop, error, html, raw, reply

TABLE = SignalTable([Signal("actions", 2, "1", "joint", "action", "actions")])
SHORT = BackOff(first_s=0.02, factor=1.5, longest_s=0.1)


def ask(index: int, text: str | None = None) -> Ask:
    name = f"g01_c{index:02d}"
    messages = (Message("system", "be brief"), Message("user", text or f"write {name}"))
    context = DesignContext("t", "move", TABLE, index=index, samples=8)
    return Ask(f"{name}_r0", name, 0, messages, context)


def config(server: ChatServer, **settings) -> DesignerConfig:
    base = DesignerConfig(
        designer="openai",
        model="loop-1",
        base_url=server.base_url,
        request_timeout_s=20,
        ask_deadline_s=50,
        retries=3,
    )
    return dataclasses.replace(base, **settings)


def designer(server: ChatServer, *, tokens_used: int = 0, key: str = KEY, **settings) -> OpenAIDesigner:
    return OpenAIDesigner(config(server, **settings), tokens_used=tokens_used, back_off=SHORT, api_key=key)


def one(server: ChatServer, **settings) -> Reply:
    """The reply to a single ask, and it must come in time. Bounds of time here are far from both what is usual and what
    would be wrong: the machine may be busy."""
    replies: list[Reply] = []
    started = time.monotonic()
    designer(server, **settings).answer([ask(0)], replies.append)
    assert time.monotonic() - started < 60
    assert [r.ask_id for r in replies] == ["g01_c00_r0"]
    return replies[0]


ONE_EXCHANGE = {
    "text": (reply("```python\nx = 1\n```"), "ok", "```python\nx = 1\n```"),
    "no code in it": (reply("I would rather talk."), "ok", "I would rather talk."),
    "parts": (reply([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ok", "ab"),
    "parts without text": (reply([{"type": "image_url", "image_url": {}}]), "empty", None),
    "no finish reason": (reply("half", finish=None), "ok", "half"),
    "cut off": (reply("def compute_rew", finish="length"), "truncated", "def compute_rew"),
    "cut off before the first word": (reply(None, finish="length"), "truncated", None),
    "filtered": (reply(None, finish="content_filter"), "filtered", None),
    "refusal": (reply(None, refusal="I cannot help"), "refused", None),
    "null content": (reply(None), "empty", None),
    "blank content": (reply("  \n"), "empty", None),
    "tool call": (reply(None, finish="tool_calls", tool_calls=[{"id": "1"}]), "empty", None),
    "no choices": (completion(choices=[]), "empty", None),
    "choices null": (completion(choices=None), "malformed", None),
    "choices missing": (completion(), "malformed", None),
    "choice null": (completion(choices=[None]), "malformed", None),
    "message missing": (completion(choices=[{"index": 0}]), "malformed", None),
    "content a number": (reply(7), "malformed", None),
    "a list": (raw(b"[]"), "malformed", None),
    "invalid JSON": (raw(b'{"choices": ['), "malformed", None),
    "invalid UTF-8": (raw(b'{"choices": "\xff\xfe"}'), "malformed", None),
    "empty body": (raw(b""), "malformed", None),
    "a web page": (html(), "malformed", None),
    "error with status 200": (raw(b'{"error": {"message": "overloaded", "code": "x"}}'), "malformed", None),
    "too long": (error(400, "context_length_exceeded", "too long"), "bad_request", None),
    "unprocessable": (error(422, "x"), "bad_request", None),
}


@pytest.mark.parametrize("case", ONE_EXCHANGE, ids=list(ONE_EXCHANGE))
def test_every_kind_of_answer_has_its_outcome(case: str) -> None:
    behaviour, outcome, text = ONE_EXCHANGE[case]
    with ChatServer(default=behaviour) as server:
        answer = one(server)
        assert (answer.outcome, answer.text) == (outcome, text)
        assert (answer.error is None) == (outcome == "ok")
        assert "\n" not in (answer.error or "")
        # Only an empty choice is worth a second request, and only one.
        assert len(server.requests) == (2 if outcome == "empty" else 1)


TRANSIENT = {
    "429": [error(429, "rate_limit_exceeded")],
    "408": [error(408)],
    "409": [error(409)],
    "500": [error(500)],
    "503 web page": [html(503)],
    "dropped at once": [drop()],
    "dropped in the middle": [drop("middle")],
    "three in a row": [error(500), drop(), error(429)],
    "gateway's 502 in a 200": [raw(b'{"error": {"message": "bad upstream", "code": 502}}')],
    "empty once": [completion(choices=[])],
}


@pytest.mark.parametrize("script", TRANSIENT.values(), ids=list(TRANSIENT))
def test_what_may_pass_is_tried_again(script: list[Behaviour]) -> None:
    with ChatServer(script, reply("there")) as server:
        answer = one(server)
        assert (answer.outcome, answer.text) == ("ok", "there")
        assert len(server.requests) == len(script) + 1


EXHAUSTED = {
    "rate_limited": error(429, "rate_limit_exceeded"),
    "server": error(500),
    "network": drop(),
    "timeout": Behaviour(body=reply("late").body, delay_s=60),
}


@pytest.mark.parametrize("outcome", EXHAUSTED)
def test_retries_end(outcome: str) -> None:
    with ChatServer(default=EXHAUSTED[outcome]) as server:
        answer = one(server, retries=2, request_timeout_s=0.5 if outcome == "timeout" else 20)
        assert (answer.outcome, answer.text) == (outcome, None)
        assert len(server.requests) == 3


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured(form: str) -> None:
    def busy_at_first(request: Request) -> Behaviour:
        if len(server.requests) > 1:
            return reply("there")
        # A date has whole seconds, so 2 s ahead may be little more than 1 s away.
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        headers = {
            "seconds": {"Retry-After": "0.5"},
            "date": {"Retry-After": moment},
            "milliseconds": {"retry-after-ms": "500"},
        }
        return error(429, headers=headers[form])

    with ChatServer(default=busy_at_first) as server:
        assert one(server).outcome == "ok"
        first, second = server.requests
        assert 0.45 < second.time_s - first.time_s < 25


def test_a_wait_beyond_the_users_limit_stops_and_says_when_to_go_on() -> None:
    with ChatServer([error(429, headers={"Retry-After": "3600"})], reply("there")) as server:
        started = time.monotonic()
        with pytest.raises(DesignerStopped, match=r"3600 s: go on with --resume.*--max-retry-after-s, which is 300"):
            one(server)
        assert time.monotonic() - started < 20
        assert len(server.requests) == 1


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    with ChatServer([error(429, headers={"Retry-After": "60"})], reply("there")) as server:
        started = time.monotonic()
        answer = one(server)
        assert time.monotonic() - started < 20
        assert answer.outcome == "rate_limited"
        assert "past the deadline" in (answer.error or "")


def test_a_wait_asked_of_one_request_holds_them_all() -> None:
    """The limit is the account's, not the request's: nothing is sent before the time that the server named."""
    busy = error(429, headers={"Retry-After": "0.6"})
    with ChatServer([busy], reply("there")) as server:
        replies: list[Reply] = []
        designer(server, parallel=1).answer([ask(i) for i in range(3)], replies.append)
        first, *others = [request.time_s for request in server.requests]
        assert len(replies) == len(others) == 3
        assert min(others) - first > 0.55


def test_a_slow_drip_ends_at_the_request_timeout() -> None:
    """Each read succeeds quickly, so a timeout per read would never fire."""
    with ChatServer(default=dataclasses.replace(reply("x" * 50), drip_s=0.2)) as server:
        started = time.monotonic()
        assert one(server, request_timeout_s=0.4, retries=0).outcome == "timeout"
        assert time.monotonic() - started < 20  # all of it would take a minute


def test_a_request_that_cannot_be_cut_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up of a host's name ends when the operating system likes; the caller goes on all the same."""
    monkeypatch.setattr("eureka.designers.asking.GRACE_S", 0.2)
    real, ended = socket.getaddrinfo, threading.Event()

    def first_hangs(*arguments, **options):
        if threading.current_thread().name == "g01_c00_r0":
            ended.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr("socket.getaddrinfo", first_hangs)
    replies: list[Reply] = []
    with ChatServer() as server:
        started = time.monotonic()
        designer(server, request_timeout_s=2, retries=0, parallel=1).answer([ask(0), ask(1)], replies.append)
        assert time.monotonic() - started < 40
    ended.set()
    assert [(r.ask_id, r.outcome) for r in replies] == [("g01_c00_r0", "timeout"), ("g01_c01_r0", "ok")]


def test_retry_after_dates_and_nonsense() -> None:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert chat.retry_after({"Retry-After": "Thu, 01 Jan 2026 12:00:30 GMT"}, now) == 30
    assert chat.retry_after({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, now) == 0
    assert chat.retry_after({"Retry-After": "-5"}, now) == 0
    assert chat.retry_after({"Retry-After": "soon"}, now) is None
    assert chat.retry_after({"Retry-After": "nan"}, now) is None
    assert chat.retry_after({"Retry-After": "Thu, 01 Jan 2026 12:00:30 +99999999"}, now) is None
    assert chat.retry_after({}, now) is None


def test_replies_out_of_order_keep_their_id_and_come_at_once() -> None:
    """The first ask's reply comes last; each reply names its ask; delivery is in the calling thread."""
    order: list[str] = []
    all_there = threading.Barrier(4)
    delivered = [threading.Event() for _ in range(5)]
    delivered[4].set()

    def last_first(request: Request) -> Behaviour:
        index = int(request.prompt[-2:])
        all_there.wait(30)
        assert delivered[index + 1].wait(30)
        return reply(f"for {request.prompt}")

    def on_reply(answer: Reply) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert answer.text == f"for write {answer.ask_id[:7]}"
        order.append(answer.ask_id)
        delivered[int(answer.ask_id[5:7])].set()

    with ChatServer(default=last_first) as server:
        designer(server, parallel=4).answer([ask(i) for i in range(4)], on_reply)
        assert server.most_at_once == 4
    assert order == [f"g01_c0{i}_r0" for i in (3, 2, 1, 0)]


def test_one_broken_reply_in_the_middle_shifts_nothing() -> None:
    with ChatServer(default=lambda r: error(400, "x") if r.prompt.endswith("02") else reply(r.prompt)) as server:
        replies: dict[str, Reply] = {}
        designer(server, parallel=3).answer([ask(i) for i in range(5)], lambda r: replies.update({r.ask_id: r}))
        assert server.most_at_once <= 3
    assert {name: (r.outcome, r.text) for name, r in replies.items()} == {
        f"g01_c0{i}_r0": ("bad_request", None) if i == 2 else ("ok", f"write g01_c0{i}") for i in range(5)
    }


FATAL = {
    "quota": (error(429, "insufficient_quota", "You exceeded your quota"), "OPENAI_API_KEY"),
    "payment": (error(402, "", "balance"), "OPENAI_API_KEY"),
    "forbidden": (error(403, "", "region"), "OPENAI_API_KEY"),
    "unknown model": (error(404, "model_not_found", "no such model"), "--model"),
}


@pytest.mark.parametrize("case", FATAL)
def test_what_cannot_pass_stops_and_delivers_the_rest(case: str) -> None:
    """The ask that failed so stays open; the one in flight is delivered; no further request is made."""
    behaviour, setting = FATAL[case]
    replies: list[Reply] = []

    other = threading.Event()

    def by_prompt(request: Request) -> Behaviour:
        if request.prompt.endswith("00"):
            assert other.wait(30)
            return behaviour
        other.set()
        return reply("paid for", delay_s=0.8)

    with ChatServer(default=by_prompt) as server:
        with pytest.raises(DesignerStopped, match=setting) as stopped:
            designer(server, parallel=2).answer([ask(i) for i in range(6)], replies.append)
        assert len(server.requests) == 2
    assert [(r.ask_id, r.text) for r in replies] == [("g01_c01_r0", "paid for")]
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("key", [KEY, "hf_LoopbackLoopbackLoopback"])
def test_the_key_is_never_shown(key: str) -> None:
    """The server repeats the key in its error: whole, with stars in the middle, where the line is cut."""
    with ChatServer(key="sk-another-one") as server:
        with pytest.raises(DesignerStopped) as stopped:
            designer(server, key=key).answer([ask(0)], lambda _: None)
        with pytest.raises(UserError) as refused:
            designer(server, key=key).check()
    replies: list[Reply] = []
    with ChatServer(default=error(400, "x", f"key {key} {key[:8]}***cdef {'x' * 215}{key}"), key=key) as server:
        designer(server, key=key).answer([ask(0)], replies.append)
    for text in (str(stopped.value), str(refused.value), str(replies[0].error)):
        assert key[:10] not in text
        assert "sk-" not in text
        assert "cdef" not in text
        assert "[key]" in text


def test_the_budget_stops_asking() -> None:
    """150 tokens a reply: with a budget of 400 the fourth request is not made."""
    replies: list[Reply] = []
    with ChatServer() as server:
        with pytest.raises(DesignerStopped, match=r"450 of 400 tokens.*--max-tokens-total"):
            designer(server, parallel=1, max_tokens_total=400).answer([ask(i) for i in range(6)], replies.append)
        assert len(server.requests) == 3
    assert [r.ask_id for r in replies] == ["g01_c00_r0", "g01_c01_r0", "g01_c02_r0"]


def test_tokens_of_a_resumed_search_count() -> None:
    with ChatServer() as server:
        with pytest.raises(DesignerStopped, match="400 of 400"):
            designer(server, max_tokens_total=400, tokens_used=400).answer([ask(0)], lambda _: None)
        assert server.requests == []


def test_a_budget_holds_without_a_count_from_the_endpoint() -> None:
    """Without usage in the replies their length is counted: 4000 characters are about 1000 tokens."""
    silent = completion(usage=None, choices=[{"index": 0, "message": {"content": "x" * 4000}}])
    with ChatServer(default=silent) as server:
        with pytest.raises(DesignerStopped, match="--max-tokens-total"):
            designer(server, parallel=1, max_tokens_total=1500).answer([ask(i) for i in range(6)], lambda _: None)
        assert len(server.requests) == 2


def test_tokens_and_cost_of_all_tries_are_recorded() -> None:
    """Two billed exchanges of 100 + 50 tokens at 2 and 10 per million: 2 * (100 * 2 + 50 * 10) / 1e6."""
    with ChatServer([completion(choices=[])], reply("there")) as server:
        answer = one(server, price_in=2.0, price_out=10.0)
    assert (answer.tokens_in, answer.tokens_out) == (200, 100)
    assert answer.cost == pytest.approx(0.0014)
    assert answer.model == "loop-1"
    assert answer.latency_s is not None
    assert answer.latency_s < 5


def test_only_what_was_asked_for_is_sent() -> None:
    with ChatServer() as server:
        one(server)
        one(server, temperature=0.0, max_reply_tokens=77)
        plain, full = (request.body for request in server.requests)
    assert set(plain) == {"model", "messages"}
    assert plain["messages"][1] == {"role": "user", "content": "write g01_c00"}
    assert (full["temperature"], full["max_completion_tokens"]) == (0.0, 77)


def test_a_refused_temperature_names_the_flag() -> None:
    refused = raw(b'{"error": {"message": "Unsupported value: temperature", "param": "temperature", "code": "x"}}')
    with (
        ChatServer(default=dataclasses.replace(refused, status=400)) as server,
        pytest.raises(DesignerStopped, match="leave --temperature away"),
    ):
        designer(server, temperature=0.5).answer([ask(0)], lambda _: None)


def test_proxies_are_not_used_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ChatServer() as server:
        assert one(server, retries=0).outcome == "ok"


def test_check_accepts_a_good_endpoint() -> None:
    with ChatServer() as server:
        designer(server).check()
        designer(server, model="loop-alias").check()  # not listed, but known when asked for by name
        assert server.requests == []
    with ChatServer(models=None) as server:
        designer(server, model="anything").check()  # no list of models there: the first ask will tell


def test_check_names_the_setting_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    with ChatServer() as server:
        for settings, key, words in (
            ({}, "", "OPENAI_API_KEY is not set"),
            ({}, "kéy", "OPENAI_API_KEY holds"),
            ({}, "sk-wrong", "set OPENAI_API_KEY to one"),
            ({"model": None}, KEY, "--model"),
            ({"model": "loop-minni"}, KEY, "--model.*Did you mean 'loop-mini'"),
            ({"model": "gpt-zzz"}, KEY, "--model.*It has loop-1, loop-mini"),
            ({"base_url": "localhost:80"}, KEY, "OPENAI_BASE_URL"),
            ({"base_url": "http://127.0.0.1:9/v1"}, KEY, "OPENAI_BASE_URL and the network"),
        ):
            started = time.monotonic()
            with pytest.raises(UserError, match=words) as refused:
                designer(server, key=key, **settings).check()
            assert "\n" not in str(refused.value)
            assert time.monotonic() - started < 30


def test_a_wrong_address_names_its_setting() -> None:
    with (
        ChatServer(models=html()) as site,
        pytest.raises(UserError, match="OPENAI_BASE_URL"),
    ):
        designer(site).check()
    with (
        ChatServer(models=None, default=error(404, message="not found")) as server,
        pytest.raises(DesignerStopped, match="OPENAI_BASE_URL"),
    ):
        designer(server).answer([ask(0)], lambda _: None)


def test_check_waits_for_an_endpoint_that_is_busy() -> None:
    """503 on the list of models is no wrong setting of the user's: it says so after its tries."""
    with ChatServer(models=error(503)) as server:
        with pytest.raises(UserError, match="try again later"):
            designer(server).check()
        assert server.paths == ["/v1/models"] * 3
