"""A real HTTP server on loopback that speaks the chat-completions protocol, and misbehaves on command.

`script` is consumed one behaviour a chat request, in order of arrival; afterwards `default` answers, which is
a behaviour or a function of the request. `requests` records what arrived.

    with ChatServer([error(429, headers={"Retry-After": "1"}), drop()], default=reply("hello")) as server:
        ... OPENAI_BASE_URL = server.base_url, OPENAI_API_KEY = server.key, --model loop-1 ...
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-loopback-0123456789abcdef"


@dataclass(frozen=True)
class Behaviour:
    """How one chat request is answered.

    Attributes:
        status, headers, body: the answer.
        delay_s: waits before answering.
        drop: closes the connection "at once", or in the "middle" of the body.
        drip_s: sends the body byte by byte with this pause between bytes.
        play: does with the bare connection whatever it likes instead; the event is set when the server ends.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: str | None = None
    drip_s: float = 0.0
    play: Callable[[socket.socket, threading.Event], None] | None = None


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time_s: float
    """Monotonic time of arrival."""

    @property
    def prompt(self) -> str:
        """Text of the last message."""
        return self.body["messages"][-1]["content"]


Default = Behaviour | Callable[[Request], Behaviour]


def completion(*, usage: tuple[int, int] | None = (100, 50), delay_s: float = 0.0, **fields: Any) -> Behaviour:
    """A completion whose top-level fields are given or replaced by `fields`."""
    data: dict[str, Any] = {"id": "c1", "object": "chat.completion", "created": 1, "model": "loop-1"}
    if usage is not None:
        data["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    body = json.dumps({**data, **fields}).encode()
    return Behaviour(body=body, headers={"Content-Type": "application/json"}, delay_s=delay_s)


def reply(content: Any, *, finish: str | None = "stop", delay_s: float = 0.0, **message: Any) -> Behaviour:
    """A completion with one choice. Keyword arguments go into its message."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
    }
    return completion(choices=[choice], delay_s=delay_s)


def error(status: int, code: str = "", message: str = "no", headers: Mapping[str, str] | None = None) -> Behaviour:
    """An error object as OpenAI sends it."""
    body = json.dumps({"error": {"message": message, "type": code, "code": code, "param": None}}).encode()
    return Behaviour(status, body, {"Content-Type": "application/json", **(headers or {})})


def html(status: int = 200) -> Behaviour:
    """A web page, as a wrong address or a gateway sends it."""
    return Behaviour(status, b"<!DOCTYPE html><html><body>Hello</body></html>", {"Content-Type": "text/html"})


def raw(body: bytes) -> Behaviour:
    """Any bytes, called JSON."""
    return Behaviour(200, body, {"Content-Type": "application/json"})


def drop(where: str = "at once") -> Behaviour:
    """A connection closed "at once" or in the "middle" of the body."""
    return Behaviour(body=reply("never complete").body, drop=where)


class ChatServer:
    """The server; a context manager.

    Args:
        script: behaviours of the first chat requests.
        default: what answers after the script.
        models: what GET /models lists; None answers 404 there, a behaviour whatever it says.
        key: the only key that is accepted.
    """

    def __init__(
        self,
        script: Sequence[Behaviour] = (),
        default: Default | None = None,
        *,
        models: Sequence[str] | Behaviour | None = ("loop-1", "loop-mini"),
        key: str = KEY,
    ) -> None:
        self.script = list(script)
        self.default: Default = default if default is not None else reply("hello")
        self.models = models
        self.key = key
        self.requests: list[Request] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self.broken_pipes = 0
        self._ending = threading.Event()
        self._open = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def next_behaviour(self, request: Request) -> Behaviour:
        """Takes the next behaviour; thread-safe."""
        with self._lock:
            self.requests.append(request)
            if self.script:
                return self.script.pop(0)
        return self.default if isinstance(self.default, Behaviour) else self.default(request)

    def _count(self, step: int) -> None:
        with self._lock:
            self._open += step
            self.most_at_once = max(self.most_at_once, self._open)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Silent: tests read `requests`."""

            def do_GET(self) -> None:
                server.paths.append(self.path)
                if not self._authorised():
                    self._send(error(401, "invalid_api_key", f"Incorrect API key provided: {server.key}"))
                elif server.models is None or isinstance(server.models, Behaviour):
                    self._send(server.models or error(404, message="no such path"))
                elif self.path == "/v1/models":
                    rows = [{"id": name, "object": "model", "created": 1, "owned_by": "me"} for name in server.models]
                    self._send(raw(json.dumps({"object": "list", "data": rows}).encode()))
                else:
                    name = self.path.removeprefix("/v1/models/")
                    known = name in server.models or name == "loop-alias"
                    self._send(raw(json.dumps({"id": name}).encode()) if known else error(404, "model_not_found"))

            def do_POST(self) -> None:
                server.paths.append(self.path)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self._authorised():
                    self._send(error(401, "invalid_api_key", f"Incorrect API key provided: {self._sent_key()}"))
                    return
                server._count(1)
                try:
                    request = Request(self.path, dict(self.headers), body, time.monotonic())
                    self._send(server.next_behaviour(request))
                finally:
                    server._count(-1)

            def _sent_key(self) -> str:
                return (self.headers["Authorization"] or "").removeprefix("Bearer ")

            def _authorised(self) -> bool:
                return self._sent_key() == server.key

            def _send(self, behaviour: Behaviour) -> None:
                server._ending.wait(behaviour.delay_s)
                if behaviour.play is not None:
                    self.close_connection = True
                    self.wfile.flush()
                    try:
                        behaviour.play(self.connection, server._ending)
                    except (BrokenPipeError, ConnectionResetError):
                        server.broken_pipes += 1  # the client gave up, which some tests want
                    return
                if behaviour.drop == "at once":
                    self.close_connection = True
                    return
                self.send_response(behaviour.status)
                for name, value in behaviour.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(behaviour.body)))
                self.end_headers()
                try:
                    self._send_body(behaviour)
                except (BrokenPipeError, ConnectionResetError):
                    server.broken_pipes += 1  # the client gave up, which some tests want
                    self.close_connection = True

            def _send_body(self, behaviour: Behaviour) -> None:
                if behaviour.drop == "middle":
                    self.wfile.write(behaviour.body[: len(behaviour.body) // 2])
                    self.close_connection = True
                elif behaviour.drip_s:
                    for place in range(len(behaviour.body)):
                        self.wfile.write(behaviour.body[place : place + 1])
                        self.wfile.flush()
                        time.sleep(behaviour.drip_s)
                else:
                    self.wfile.write(behaviour.body)

        return Handler
