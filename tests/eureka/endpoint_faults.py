"""What endpoints do wrong, as behaviours of the loopback server, each with the outcome that it must have.

A fault "settles" when it becomes its ask's reply, and "stops" when it ends the search, to be resumed.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from tests.eureka.chat_server import KEY, Behaviour, completion, drop, error, html, raw, reply

JSON_HEADERS = {"Content-Type": "application/json"}
CODE = (
    "```python\nimport torch\n\ndef compute_reward(mass_position):\n"
    "    pull = torch.exp(-torch.square(mass_position[:, 0]))\n    return pull, {'pull': pull}\n```\n"
)
HALF = CODE[:90]
BIG = 50 * 10**6
USAGE = ', "usage": {"prompt_tokens": 10, "completion_tokens": 5}'
GOOD_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

Play = Callable[[socket.socket, threading.Event], None]


def play(function: Play) -> Behaviour:
    """A behaviour that is a function of the connection."""
    return Behaviour(play=function)


def hang(sent: bytes = b"") -> Behaviour:
    """Sends something, then nothing more, and keeps the connection."""

    def run(connection: socket.socket, ending: threading.Event) -> None:
        connection.sendall(sent)
        ending.wait(30)

    return play(run)


def drip(first: bytes, then: bytes, pause_s: float = 0.05) -> Behaviour:
    """Sends something, then a few bytes again and again: every read succeeds, and it never ends."""

    def run(connection: socket.socket, ending: threading.Event) -> None:
        connection.sendall(first)
        while not ending.wait(pause_s):
            connection.sendall(then)

    return play(run)


def sent(data: bytes) -> Behaviour:
    """Sends bytes as they are and closes."""
    return play(lambda connection, _: connection.sendall(data))


def reset() -> Behaviour:
    """Closes with a TCP reset in the middle of the body."""

    def run(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(GOOD_HEAD + b'Content-Length: 900\r\n\r\n{"choices"')
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return play(run)


def flood(head: bytes, size: int = BIG) -> Behaviour:
    """Sends `size` bytes of one string, as fast as they are taken."""

    def run(connection: socket.socket, ending: threading.Event) -> None:
        connection.sendall(head + b'{"choices": [{"message": {"content": "')
        block = b"x" * 65536
        for _ in range(size // len(block)):
            if ending.is_set():
                return
            connection.sendall(block)

    return play(run)


def packed(body: bytes, encoding: str = "gzip") -> Behaviour:
    """A body packed although nobody asked for it."""
    data = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    return Behaviour(200, data, {**JSON_HEADERS, "Content-Encoding": encoding})


def bomb() -> Behaviour:
    """50 MB in 50 kB."""
    return packed(b'{"choices": [{"message": {"content": "' + b"x" * BIG + b'"}}]}')


def redirect(place: str, status: int = 307) -> Behaviour:
    """Sends the client somewhere else."""
    return Behaviour(status, b"", {"Location": place})


def body(text: str) -> Behaviour:
    """A completion whose fields besides its good choice are written by hand."""
    choice = json.dumps({"index": 0, "finish_reason": "stop", "message": {"content": CODE}})
    return raw(f'{{"choices": [{choice}]{text}}}'.encode())


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        behaviour: how the endpoint answers.
        outcome: what it must be taken for.
        ends: whether it becomes a reply or stops the search.
        words: what the line for people must hold.
        tries: requests that are made for it.
        limit_s: time a request is given.
    """

    behaviour: Behaviour
    outcome: str
    ends: Literal["settles", "stops"] = "settles"
    words: str = ""
    tries: int = 1
    limit_s: float = 10.0


TRIES = 2  # with one retry, as the tests have it
SHORT_S = 0.5
RETRY_1H = {"Retry-After": "3600"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

FAULTS: dict[str, Fault] = {
    # time
    "hung before the answer": Fault(hang(), "timeout", tries=TRIES, limit_s=SHORT_S),
    "hung in the headers": Fault(hang(b"HTTP/1.1 200 OK\r\nContent-"), "timeout", tries=TRIES, limit_s=SHORT_S),
    "hung in the body": Fault(
        hang(GOOD_HEAD + b'Content-Length: 900\r\n\r\n{"cho'), "timeout", tries=TRIES, limit_s=SHORT_S
    ),
    "drip of a body": Fault(
        drip(GOOD_HEAD + b"Content-Length: 90000\r\n\r\n{", b" "), "timeout", tries=TRIES, limit_s=SHORT_S
    ),
    "drip of a chunked body": Fault(
        drip(GOOD_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), "timeout", tries=TRIES, limit_s=SHORT_S
    ),
    "drip of headers": Fault(drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), "timeout", tries=TRIES, limit_s=SHORT_S),
    "endless 100 Continue": Fault(drip(CONTINUE, CONTINUE), "timeout", tries=TRIES, limit_s=SHORT_S),
    "drip of an error page": Fault(
        drip(b"HTTP/1.1 500 Oops\r\nContent-Length: 90000\r\n\r\n", b"."),
        "server",
        words="500",
        tries=TRIES,
        limit_s=SHORT_S,
    ),
    "drip of a refused key": Fault(
        drip(b"HTTP/1.1 401 No\r\nContent-Length: 90000\r\n\r\n", b"."),
        "auth",
        "stops",
        "OPENAI_API_KEY",
        limit_s=SHORT_S,
    ),
    # connection
    "closed at once": Fault(drop(), "network", tries=TRIES),
    "body cut": Fault(drop("middle"), "network", words="broke off", tries=TRIES),
    "chunked body cut": Fault(
        sent(GOOD_HEAD + b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"choices\r\n'), "network", tries=TRIES
    ),
    "reset in the body": Fault(reset(), "network", tries=TRIES),
    "no HTTP": Fault(sent(b"SSH-2.0-OpenSSH_9.6\r\n"), "network", tries=TRIES),
    "huge headers": Fault(
        sent(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"y" * 10**6 + b"\r\n\r\n"), "network", tries=TRIES
    ),
    "redirect to a dead host": Fault(
        redirect("http://192.0.2.1:9/v1/chat/completions"), "bad_request", "stops", "http://192.0.2.1:9/v1/chat"
    ),
    "redirect loop": Fault(redirect("/v1/chat/completions"), "bad_request", "stops", "OPENAI_BASE_URL"),
    "redirect to a page, 302": Fault(redirect("https://login.example/?k=1", 302), "bad_request", "stops", "login"),
    # size
    "50 MB with a length": Fault(flood(GOOD_HEAD + b"Content-Length: 50000000\r\n\r\n"), "malformed", words="longer"),
    "50 MB without a length": Fault(flood(GOOD_HEAD + b"\r\n"), "malformed", words="longer than"),
    "50 MB of an error": Fault(
        flood(b"HTTP/1.1 503 No\r\nContent-Length: 50000000\r\n\r\n"), "server", words="503", tries=TRIES
    ),
    "gzip bomb": Fault(bomb(), "malformed", words="unpacked"),
    "deep nesting": Fault(raw(b"[" * 10**6), "malformed"),
    "a number of 5000 digits": Fault(raw(b'{"choices": ' + b"9" * 5000 + b"}"), "malformed"),
    # content of an answer with status 200
    "a web page": Fault(html(), "malformed", words="OPENAI_BASE_URL"),
    "empty body": Fault(raw(b""), "malformed"),
    "invalid JSON": Fault(raw(b'{"choices": ['), "malformed", words="invalid JSON"),
    "invalid UTF-8": Fault(raw(b'{"choices": "\xff\xfe"}'), "malformed", words="UTF-8"),
    "a stream nobody asked for": Fault(raw(b'data: {"choices": []}\n\ndata: [DONE]\n\n'), "malformed", words="stream"),
    "packed as brotli": Fault(
        replace(reply(CODE), headers={**JSON_HEADERS, "Content-Encoding": "br"}), "malformed", words="packed"
    ),
    "broken gzip": Fault(
        replace(reply(CODE), headers={**JSON_HEADERS, "Content-Encoding": "gzip"}), "malformed", words="gzip"
    ),
    "choices missing": Fault(completion(), "malformed"),
    "choices null": Fault(completion(choices=None), "malformed"),
    "choices empty": Fault(completion(choices=[]), "empty", tries=TRIES),
    "message null": Fault(completion(choices=[{"index": 0, "message": None}]), "malformed"),
    "content null": Fault(reply(None), "empty", tries=TRIES),
    "refusal": Fault(reply(None, refusal="I cannot help with robots"), "refused", words="robots"),
    "refusal as a part": Fault(reply([{"type": "refusal", "refusal": "no"}]), "refused"),
    "filtered": Fault(reply(None, finish="content_filter"), "filtered"),
    "half a function": Fault(reply(HALF, finish="length"), "truncated"),
    "tool call": Fault(
        reply(None, finish="tool_calls", tool_calls=[{"id": "1", "function": {"name": "f"}}]),
        "empty",
        words="tool call",
        tries=TRIES,
    ),
    "an error with status 200": Fault(raw(b'{"error": {"message": "overloaded"}}'), "malformed", words="overloaded"),
    "spent quota with status 200": Fault(
        raw(b'{"error": {"message": "gone", "code": "insufficient_quota"}}'), "quota", "stops", "--resume"
    ),
    # status
    "400": Fault(error(400, "invalid_request_error"), "bad_request"),
    "401": Fault(error(401, "invalid_api_key", f"Incorrect key: {KEY}"), "auth", "stops", "OPENAI_API_KEY"),
    "403": Fault(error(403, "", "your region"), "auth", "stops", "region"),
    "404 unknown model": Fault(error(404, "model_not_found", "no such model"), "bad_request", "stops", "--model"),
    "408": Fault(error(408), "server", tries=TRIES),
    "409": Fault(error(409), "server", tries=TRIES),
    "413": Fault(error(413, "", "too large"), "bad_request"),
    "422": Fault(error(422, "x"), "bad_request"),
    "429 with a short Retry-After": Fault(
        error(429, "rate_limit_exceeded", headers={"Retry-After": "0.05"}), "rate_limited", tries=TRIES
    ),
    "429 with a long Retry-After": Fault(
        error(429, "rate_limit_exceeded", headers=RETRY_1H), "rate_limited", "stops", "--max-retry-after-s"
    ),
    "429 insufficient_quota": Fault(error(429, "insufficient_quota", "pay"), "quota", "stops", "--resume"),
    "402": Fault(error(402, "", "balance"), "quota", "stops", "--resume"),
    "500": Fault(error(500), "server", tries=TRIES),
    "502 web page": Fault(html(502), "server", words="502", tries=TRIES),
    "503 with a short Retry-After": Fault(error(503, headers={"Retry-After": "0.05"}), "server", tries=TRIES),
    "503 with a long Retry-After": Fault(error(503, headers=RETRY_1H), "server", "stops", "3600 s"),
    "529": Fault(error(529, "overloaded_error"), "server", tries=TRIES),
}

HARMLESS: dict[str, Behaviour] = {
    "wrong content type": replace(reply(CODE), headers={"Content-Type": "text/plain"}),
    "parts": reply([{"type": "text", "text": CODE[:40]}, {"type": "text", "text": CODE[40:]}]),
    "parts with thinking": reply([{"type": "thinking", "text": "```python\nx\n```"}, {"type": "text", "text": CODE}]),
    "packed although not asked": packed(reply(CODE).body),
    "deflated although not asked": packed(reply(CODE).body, "deflate"),
    "no usage": completion(usage=None, choices=[{"index": 0, "message": {"content": CODE}}]),
    "usage null": body(', "usage": null'),
    "usage negative": body(', "usage": {"prompt_tokens": -5, "completion_tokens": -7}'),
    "usage twice": body(USAGE + ', "usage": {"prompt_tokens": 9, "completion_tokens": 9}'),
    "usage huge": body(f', "usage": {{"prompt_tokens": {10**30}, "completion_tokens": 1e300}}'),
    "usage words": body(', "usage": {"prompt_tokens": "ten", "completion_tokens": true}'),
    "wrong ids": body(USAGE + ', "id": 7, "model": ["x"], "object": "g01_c00_r0", "choices_id": "g01_c00_r0"'),
    "a long model name": body(USAGE + f', "model": "{"m" * 10**5}\\nsecond line"'),
    "half a surrogate pair": reply(CODE + "\ud83d"),
    "closed without a length": sent(GOOD_HEAD + b"\r\n" + reply(CODE).body),
}
"""Answers that are odd, and still hold the program."""
