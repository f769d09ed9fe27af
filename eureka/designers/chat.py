"""What a chat-completions endpoint really sends, read into one typed answer. Pure: bytes in, `Answer` out.

Endpoints that call themselves compatible return, with status 200, web pages, error objects, `choices` that
are missing, null or empty, content that is null or a list of parts, and functions cut in half. Each has its
own outcome here, and each outcome says whether another try can help (`transient`) and whether any further ask
is pointless (`fatal`). All text that comes out can be stored: it is valid Unicode, and counts fit a database."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from eureka.designers.base import Outcome
from eureka.designers.transport import Received

QUOTA_CODES = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "insufficient_balance",
    "billing_not_active",
)
# 408 request timeout, 409 lock conflict, 425 too early; 5xx are added below.
TRANSIENT_STATUS = (408, 409, 425)
ERROR_CAP = 300  # characters of a server's own words that go into one line
NAME_CAP = 200  # characters of a model's name
MOST_TOKENS = 10**9  # of one exchange; what is above is no count
FINISHED_BY_FILTER = ("content_filter", "safety")
FINISHED_BY_LENGTH = ("length", "max_tokens")
TEXT_PARTS = ("text", "output_text", None)


@dataclass(frozen=True)
class Answer:
    """One HTTP exchange, understood.

    Attributes:
        outcome: as in `Reply`.
        text: the reply's text, if any.
        error: one line on what was wrong.
        model, tokens_in, tokens_out: as the endpoint reports them.
        transient: whether the same request may succeed later.
        once: whether it is worth one more try and no more.
        fatal: whether every other ask would fail in the same way.
        retry_after_s: how long the server asked to wait.
    """

    outcome: Outcome
    text: str | None = None
    error: str | None = None
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    transient: bool = False
    once: bool = False
    fatal: bool = False
    retry_after_s: float | None = None


def one_line(text: object, cap: int = ERROR_CAP) -> str:
    """`text` with runs of white space as one blank, without control characters, cut after `cap` characters."""
    words = "".join(c if c.isprintable() else " " for c in _unicode(str(text)[: 4 * cap]))
    line = " ".join(words.split())
    return line if len(line) <= cap else line[: cap - 3] + "..."


def _unicode(text: str) -> str:
    """`text` with a mark for each half of a surrogate pair, which JSON may hold and no file or database takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def understand(received: Received) -> Answer:
    """Reads what a request for a completion brought, whole or not."""
    if received.status is not None and not 200 <= received.status < 300:
        return rejection(received)
    if received.problem in ("timeout", "network"):
        return Answer(received.problem, error=received.note, transient=True)
    if received.problem is not None:
        return Answer("malformed", error=received.note)
    return completion(received.body)


def holds_reply(answer: Answer) -> bool:
    """Whether this is what the model had to say, or a final no, so that the same request need not be made again."""
    return answer.outcome in ("ok", "truncated", "refused", "filtered")


def rejection(received: Received) -> Answer:
    """Reads an answer whose status is not 2xx; its body may be cut."""
    status = received.status or 0
    if status < 400:
        where = urlsplit(received.headers.get("location", ""))
        place = f"{where.scheme}://{where.netloc.rpartition('@')[2]}{where.path}" if where.netloc else where.path
        words = f"it sends requests on to {one_line(place, 120)!r}, which is not followed, since the key would go along"
        return Answer("bad_request", error=f"status {status}: {words}", fatal=True)
    try:
        body = read_body(received.body)
    except ValueError:
        body = received.body.decode("utf-8", "replace")
    return failure(status, received.headers, body)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by `Retry-After` (seconds or an HTTP date) or `retry-after-ms`; None without either."""
    lower = {name.lower(): value for name, value in headers.items()}
    milliseconds = _number(lower.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000.0)
    value = lower.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None  # neither a number nor a date: as if the header were not there
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _number(value: str | None) -> float | None:
    """`value` as a finite number, or None where it is not one."""
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_body(body: bytes) -> Any:
    """The JSON value in `body`.

    Raises:
        ValueError: invalid UTF-8 or JSON; the text says which, and whether it looks like a web page.
    """
    try:
        return json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"the endpoint sent invalid UTF-8 (byte {error.start})") from error
    except (ValueError, RecursionError) as error:  # of ValueError also: a number of more than 4300 digits
        start = body.lstrip()[:200].lower()
        if start.startswith(b"<"):
            raise ValueError("the endpoint sent a web page instead of JSON; is OPENAI_BASE_URL right?") from error
        if start.startswith((b"data:", b"event:", b":")):
            raise ValueError("the endpoint sent a stream of events, which was not asked for") from error
        raise ValueError(f"the endpoint sent invalid JSON ({len(body)} bytes)") from error


def completion(body: bytes) -> Answer:
    """Reads the body of a chat completion that came with status 200."""
    try:
        data = read_body(body)
    except ValueError as error:
        return Answer("malformed", error=str(error))
    if not isinstance(data, dict):
        return Answer("malformed", error=f"the endpoint sent a JSON {type(data).__name__} instead of a completion")
    if data.get("choices") is None and data.get("error"):
        return _error_in_success(data)
    tokens_in, tokens_out = _usage(data.get("usage"))
    model = one_line(data["model"], NAME_CAP) if isinstance(data.get("model"), str) else None
    found = _choice(data)
    return Answer(
        found.outcome,
        text=found.text,
        error=found.error,
        model=model,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        once=found.outcome == "empty",
    )


def _error_in_success(data: dict[str, Any]) -> Answer:
    """Some gateways send status 200 and an error object whose code is the real status."""
    error = data["error"]
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        return failure(code, {}, data)
    if _is_quota(error):
        return failure(429, {}, data)
    message = error.get("message", error) if isinstance(error, dict) else error
    return Answer("malformed", error=f"the endpoint sent an error with status 200: {one_line(message)}")


def _usage(usage: Any) -> tuple[int | None, int | None]:
    """(prompt tokens, reply tokens), each None where it is not told."""
    if not isinstance(usage, dict):
        return None, None
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    tokens_in, tokens_out = (n if type(n) is int and 0 <= n <= MOST_TOKENS else None for n in counts)
    return tokens_in, tokens_out


def _choice(data: dict[str, Any]) -> Answer:
    """Outcome, text and error of the first choice."""
    choices = data.get("choices")
    if not isinstance(choices, list):
        state = "are missing" if "choices" not in data else f"are {type(choices).__name__}, not a list"
        return Answer("malformed", error=f"the completion's choices {state}")
    if not choices:
        return Answer("empty", error="the completion has no choice in it")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return Answer("malformed", error="the completion's choice has no message")
    content = message.get("content")
    text = _text(content)
    if text is None:
        return Answer("malformed", error=f"the message's content is a {type(content).__name__}, not text")
    finish = choice.get("finish_reason")
    if finish in FINISHED_BY_LENGTH:
        return Answer("truncated", text=text or None, error="the reply was cut off at the endpoint's length limit")
    if finish in FINISHED_BY_FILTER:
        return Answer("filtered", text=text or None, error="the endpoint's content filter stopped the reply")
    if text.strip():
        return Answer("ok", text=text)
    refused = message.get("refusal") or _parts(content, "refusal", ("refusal",))
    if refused:
        return Answer("refused", error=f"the model refused: {one_line(refused)}")
    what = "a tool call instead of text" if message.get("tool_calls") else "no text"
    return Answer("empty", error=f"the reply holds {what} (finish_reason {one_line(finish, 40)})")


def _text(content: Any) -> str | None:
    """Text of a message's content: a string, null, or a list of parts; None where it is something else."""
    if content is None:
        return ""
    if isinstance(content, str):
        return _unicode(content)
    return _parts(content, "text", TEXT_PARTS) if isinstance(content, list) else None


def _parts(content: Any, name: str, kinds: tuple[str | None, ...]) -> str:
    """Field `name` of a content's parts of these kinds, joined; thinking and pictures are other kinds."""
    if not isinstance(content, list):
        return ""
    found = [
        part if isinstance(part, str) else part.get(name)
        for part in content
        if (isinstance(part, str) and name == "text") or (isinstance(part, dict) and part.get("type") in kinds)
    ]
    return _unicode("".join(part for part in found if isinstance(part, str)))


def failure(status: int, headers: Mapping[str, str], body: Any) -> Answer:
    """Reads an answer whose status is not 200. `body` is its JSON value, or its text where it is not JSON."""
    error = body.get("error", body) if isinstance(body, dict) else body
    code, message = "", error
    if isinstance(error, dict):
        code = str(error.get("code") or error.get("type") or "")[:ERROR_CAP]
        message = error.get("message", "")
    words = one_line(re.sub(r"<[^>]*>", " ", str(message or "")[: 10 * ERROR_CAP]))
    text = f"status {status}" + (f" ({one_line(code, 60)})" if code else "") + (f": {words}" if words else "")
    wait = retry_after(headers)
    if status == 402 or (status in (403, 429) and _is_quota(error)):
        return Answer("quota", error=text, fatal=True)
    if status == 429:
        return Answer("rate_limited", error=text, transient=True, retry_after_s=wait)
    if status in (401, 403, 407) or (status == 400 and re.search(r"api[ _-]?key", words, re.IGNORECASE)):
        return Answer("auth", error=text, fatal=True)
    if status in TRANSIENT_STATUS or status >= 500:
        # 501 and 505 will not go away by waiting.
        return Answer("server", error=text, transient=status not in (501, 505), retry_after_s=wait)
    return Answer("bad_request", error=text, fatal=status in (404, 405) or _is_setting(code, error))


def _is_quota(error: Any) -> bool:
    """Whether an error object says that the account is spent, which waiting does not cure."""
    if not isinstance(error, dict):
        return False
    return any(str(error.get(field)) in QUOTA_CODES for field in ("code", "type"))


def _is_setting(code: str, error: Any) -> bool:
    """Whether a bad request is due to a setting that every ask shares, rather than to this ask's text."""
    shared = ("model", "temperature", "max_tokens", "max_completion_tokens")
    return code == "model_not_found" or (isinstance(error, dict) and error.get("param") in shared)


def setting_to_change(answer: Answer) -> str:
    """The way out of a failure, as the end of a sentence."""
    text = (answer.error or "").lower()
    if answer.outcome == "bad_request" and "sends requests on" in text:
        return "set OPENAI_BASE_URL to the address that answers itself"
    if answer.outcome == "quota":
        return "no quota is left: top up the account or set another OPENAI_API_KEY, then go on with --resume"
    if answer.outcome == "auth":
        return "the key is not accepted: set OPENAI_API_KEY to one that is valid for OPENAI_BASE_URL"
    if "temperature" in text:
        return "this model does not take that temperature: leave --temperature away"
    if answer.outcome == "bad_request":
        return "check --model, and that OPENAI_BASE_URL ends where /chat/completions follows (usually /v1)"
    if answer.outcome in ("network", "timeout"):
        return "check OPENAI_BASE_URL and the network"
    return "try again later, or set another OPENAI_BASE_URL"


def model_ids(body: bytes) -> list[str]:
    """The ids in a list of models; empty where it has another form."""
    data = read_body(body)
    rows = data.get("data") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        return []
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def same_model(wanted: str, listed: str) -> bool:
    """Whether a listed id means `wanted`: some lists add a prefix ("models/x") or a tag ("x:latest")."""
    return wanted == listed or listed.endswith(f"/{wanted}") or listed == f"{wanted}:latest"


def is_loopback(url: str) -> bool:
    """Whether an endpoint is on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return False  # a name, not an address
