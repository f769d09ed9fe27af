"""One HTTP exchange with a chat endpoint, bounded in time and in size. The only file that imports the `openai` client.

The client's time-outs count per read, so a slow drip never ends; it follows redirects, reads whatever is sent into
memory, unpacks it first, and uses proxies of the environment even for this machine. Here a timer cuts the connection
when the time is up, wherever the exchange stands; redirects are not followed, because the key would go along;
and a body is read, and unpacked, up to a limit. The client's own retries are off.

Not bounded here: the look-up of a host's name, which the operating system bounds. Nothing is retried or understood.
"""

from __future__ import annotations

import importlib
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from eureka.designers.redaction import Redaction

Problem = Literal["timeout", "network", "too_long", "encoding"]

BODY_LIMIT = 2 * 2**20
"""Bytes of one reply; a reward program has a few thousand, the longest reasoning some hundred thousand."""
LIST_LIMIT = 16 * 2**20
"""Bytes of a list of models; the longest of today has about one million."""
HEAD_KEPT = 64 * 2**10
"""Bytes kept of a body that is too long."""
_SENT_HEADERS = {"Accept-Encoding": "identity"}
_FRAMING = ("content-encoding", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class Received:
    """What one request brought, the key taken out.

    Attributes:
        status: HTTP status; None where no answer began.
        headers: of the answer.
        body: what came of it, unpacked.
        problem: why `body` is not the whole answer; None where it is.
        note: the problem in words.
        wall_s: seconds it took.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    problem: Problem | None = None
    note: str = ""
    wall_s: float = 0.0


class Wire:
    """A connection to one endpoint; may be used by several threads.

    Args:
        base_url: the endpoint.
        key: sent as bearer token.
        redaction: takes secrets out of what comes back.
        trust_env: whether proxies and certificates of the environment are used.

    Raises:
        ImportError: the `openai` package is missing.
    """

    def __init__(self, base_url: str, key: str, redaction: Redaction, *, trust_env: bool) -> None:
        import openai

        self._openai = openai
        self._redaction = redaction
        http = _bounded_client(openai, redaction, trust_env)
        self._client = openai.OpenAI(
            api_key=key, base_url=base_url, max_retries=0, http_client=http, default_headers=_SENT_HEADERS
        )

    def complete(self, body: dict[str, Any], limit_s: float) -> Received:
        """POST /chat/completions, over within `limit_s`."""
        create = self._client.chat.completions.with_raw_response.create
        return self._exchange(lambda: create(**body, timeout=limit_s), limit_s)

    def models(self, limit_s: float) -> Received:
        """GET /models, over within `limit_s`."""
        return self._exchange(lambda: self._client.models.with_raw_response.list(timeout=limit_s), limit_s)

    def model(self, name: str, limit_s: float) -> Received:
        """GET /models/NAME, over within `limit_s`."""
        return self._exchange(lambda: self._client.models.with_raw_response.retrieve(name, timeout=limit_s), limit_s)

    def _exchange(self, call: Callable[[], Any], limit_s: float) -> Received:
        """Whatever the endpoint does becomes a `Received`; faults of ours are raised."""
        started = time.monotonic()
        try:
            response = call().http_response
        except self._openai.APIStatusError as error:
            response = error.response
        except self._openai.APIConnectionError as error:
            wall_s = time.monotonic() - started
            if isinstance(error, self._openai.APITimeoutError):
                return Received(problem="timeout", note=f"no complete answer within {limit_s:.3g} s", wall_s=wall_s)
            cause = error.__cause__ or error
            note = self._redaction.line(f"connection failed ({type(cause).__name__}: {str(cause)[:200]})")
            return Received(problem="network", note=" ".join(note.split()), wall_s=wall_s)
        problem, note = response.extensions["eureka_end"]
        return Received(
            status=response.status_code,
            headers=dict(response.headers.items()),
            body=response.content,
            problem=problem,
            note=note,
            wall_s=time.monotonic() - started,
        )


class _Timer:
    """Cuts the connection of one exchange when its time is up. Used as a context."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.expired = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(limit_s, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> _Timer:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Called by the HTTP library at each step of a request (its `trace` extension); notes connections made."""
        made = info.get("return_value") if event.endswith(".complete") else None
        ask = getattr(made, "get_extra_info", None)
        connection = ask("socket") if ask else None
        if connection is not None:
            with self._lock:
                self._sockets.append(connection)
            if self.expired:
                self._cut()

    def _cut(self) -> None:
        self.expired = True
        with self._lock:
            for connection in self._sockets:
                try:
                    # Not the method of an encrypted socket, which another thread may be reading from.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                except OSError:
                    continue  # closed already, or taken over by its encrypted successor, which is in the list too


def _bounded_client(openai: Any, redaction: Redaction, trust_env: bool) -> Any:
    """An HTTP client for `openai` whose answers are whole, small and in time, or say in what they are not.

    The key is out of them before `openai` sees them, since it logs headers where OPENAI_LOG asks for it.
    """
    base = openai.DefaultHttpxClient
    library = _library(openai)

    class Bounded(base):
        def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            limit = LIST_LIMIT if request.method == "GET" else BODY_LIMIT
            with _Timer(request.extensions["timeout"]["read"]) as timer:
                request.extensions = {**request.extensions, "trace": timer.trace}
                try:
                    answer = super().send(request, stream=True, **options)
                except library.TransportError as error:
                    if timer.expired:
                        raise library.ReadTimeout("the time is up", request=request) from error
                    raise
                body, problem, note = _read(answer, limit, timer, library)
            return library.Response(
                answer.status_code,
                headers=[
                    (name, redaction.line(value))
                    for name, value in answer.headers.multi_items()
                    if name.lower() not in _FRAMING
                ],
                content=redaction.body(body, answer.status_code),
                request=request,
                extensions={"eureka_end": (problem, note)},
            )

    # Connections are not kept: a reply takes seconds, and one kept too long is cut by the other side as it is used.
    limits = library.Limits(max_keepalive_connections=0)
    return Bounded(trust_env=trust_env, follow_redirects=False, limits=limits)


def _library(openai: Any) -> Any:
    """The HTTP library beneath the client: httpx, or httpx2 in newer versions."""
    name = next(base.__module__ for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
    return importlib.import_module(name.split(".")[0])


def _read(answer: Any, limit: int, timer: _Timer, library: Any) -> tuple[bytes, Problem | None, str]:
    """(body, problem, note): the body of an answer up to `limit` bytes, unpacked."""
    parts: list[bytes] = []
    size = 0
    problem: Problem | None = None
    note = ""
    late = False
    try:
        for part in answer.iter_raw():
            parts.append(part)
            size += len(part)
            if size > limit:
                break
    except library.TimeoutException:  # one read of the client's own took the whole time, and our timer is yet to wake
        late = True
    except library.TransportError as error:
        problem, note = "network", f"the answer broke off after {size} bytes ({type(error).__name__})"
    finally:
        answer.close()
    if late or timer.expired:  # a cut connection may look like the end of the body
        problem, note = "timeout", f"no complete answer within {timer.limit_s:.3g} s"
    if size > limit:
        return b"".join(parts)[:HEAD_KEPT], "too_long", f"the answer is longer than {limit} bytes"
    body, wrong, why = _unpack(b"".join(parts), answer.headers.get("content-encoding", ""), limit)
    return body, problem or wrong, note or why


def _unpack(packed: bytes, encoding: str, limit: int) -> tuple[bytes, Problem | None, str]:
    """(body, problem, note): what a server packed although it was asked not to."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return packed, None, ""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return packed[:HEAD_KEPT], "encoding", f"the answer is packed as {encoding[:40]!r}, which was not asked for"
    unpacker = zlib.decompressobj(wbits=47)  # 32 + 15: gzip or zlib by the header
    try:
        body = unpacker.decompress(packed, limit + 1)
    except zlib.error as error:
        return packed[:HEAD_KEPT], "encoding", f"the answer is no {encoding}: {error}"
    if len(body) > limit:
        return body[:HEAD_KEPT], "too_long", f"the answer is longer than {limit} bytes when unpacked"
    return (body, None, "") if unpacker.eof else (body, "network", "the packed answer broke off")
