"""Rewards written by an LLM behind any OpenAI-compatible chat endpoint.

The only file that imports the `openai` client. Its own retries are off: they repeat what is hopeless (a spent
quota), give up on long Retry-After values and know no total deadline, because its timeout counts per read and
a slow drip never ends. Here one thread makes one request with a deadline on the whole body, and the thread
that called `answer` delivers each reply as it arrives and gives up on a request that outlives its deadline
all the same.

What it does not do: stream, use tools, or ask for several choices at once (many servers ignore `n`).
"""

from __future__ import annotations

import importlib
import os
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eureka.designers import chat
from eureka.designers.base import Ask, DesignerConfig, DesignerStopped, Reply
from tasks.errors import UserError, did_you_mean

DEFAULT_BASE_URL = "https://api.openai.com/v1"
BODY_LIMIT = 16 * 2**20  # bytes of one reply; a reward program has a few thousand
CHECK_TIMEOUT_S = 20.0
CHARACTERS_PER_TOKEN = 4  # a rough mean for English and Python, for endpoints that report no usage
SECRET_LENGTH = 8
GRACE_S = 2.0  # how long after its deadline a request may still end by itself


@dataclass(frozen=True)
class BackOff:
    """Waiting between tries: `first_s * factor**n`, at most `longest_s`, times a random 0.5 to 1."""

    first_s: float = 1.0
    factor: float = 2.0
    longest_s: float = 60.0

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait after failed try number `attempt` (from 0). Jitter keeps parallel asks apart."""
        return min(self.longest_s, self.first_s * self.factor**attempt) * rng.uniform(0.5, 1.0)


class OpenAIDesigner:
    """Asks a chat endpoint for each program, several at a time.

    Args:
        config: model, endpoint, limits; `base_url` and `model` fall back to OPENAI_BASE_URL and OPENAI_MODEL.
        tokens_used: tokens a resumed search has already paid for; they count against `max_tokens_total`.
        back_off: waiting between tries.
        api_key: the key; OPENAI_API_KEY when not given. It appears in no message.
    """

    name = "openai"

    def __init__(
        self,
        config: DesignerConfig,
        *,
        tokens_used: int = 0,
        back_off: BackOff = BackOff(),
        api_key: str | None = None,
    ) -> None:
        self.config = config
        self.model = (config.model or os.environ.get("OPENAI_MODEL", "")).strip()
        self.base_url = (config.base_url or os.environ.get("OPENAI_BASE_URL", "")).strip() or DEFAULT_BASE_URL
        self.tokens_used = tokens_used
        self._back_off = back_off
        self._key = (api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")).strip()
        self._tokens_lock = threading.Lock()
        self._connection: Any = None

    # -- before anything is trained

    def check(self) -> None:
        """Asks the endpoint for its models: is it there, does it take the key, does it know the model?

        Raises:
            UserError: one line that names the setting to change.
        """
        self._check_settings()
        answer, body = self._get("/models")
        if answer.outcome == "bad_request":
            return  # an endpoint without a list of models: the first ask will tell
        if answer.outcome != "ok":
            raise UserError(self._blame(answer))
        known = chat.model_ids(body)
        if not known or any(chat.same_model(self.model, name) for name in known):
            return
        single, _ = self._get(f"/models/{self.model}")  # lists leave out aliases and private models
        if single.outcome == "ok":
            return
        hint = did_you_mean(self.model, known) or f" It has {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}."
        raise UserError(f"{self._place()} has no model {self.model!r}: set --model to one that it has.{hint}")

    def _check_settings(self) -> None:
        if not self._key:
            raise UserError(
                "OPENAI_API_KEY is not set: set it to your key (to any word where the endpoint needs none), "
                "or use --designer evolution, which needs no key."
            )
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError("OPENAI_API_KEY holds characters that cannot be sent: set it to the key alone.")
        if not self.model:
            raise UserError("the openai designer has no model: name one with --model or OPENAI_MODEL.")
        if not re.match(r"https?://[^/]+", self.base_url):
            raise UserError(f"OPENAI_BASE_URL is {self.base_url!r}: expected http://HOST/v1 or https://HOST/v1.")
        try:
            self._client()
        except ImportError as error:
            raise UserError("the openai designer needs the openai package: pip install openai") from error

    def _get(self, path: str) -> tuple[chat.Answer, bytes]:
        """One GET, tried again where that can help; the body where the outcome is "ok"."""
        rng = random.Random(path)
        answer, body = chat.Answer("network"), b""
        for attempt in range(min(self.config.retries, 2) + 1):
            if attempt:
                wait = answer.retry_after_s
                time.sleep(min(CHECK_TIMEOUT_S, self._back_off.wait_s(attempt - 1, rng) if wait is None else wait))
            answer, body = self._exchange("get", path, {}, min(CHECK_TIMEOUT_S, self.config.request_timeout_s))
            if not answer.transient:
                break
        return answer, body

    # -- asking

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """Sends every ask, up to `parallel` at once, and delivers each reply from this thread as it arrives.

        A spent quota or budget, a refused key and an unknown model end it: no further request is made, those
        in flight are waited for and delivered, and the asks that failed in this way get no reply, so that a
        resumed search asks them again.

        Raises:
            DesignerStopped: as said above, after delivering what has arrived.
        """
        self._check_settings()
        waiting = list(asks)
        done: queue.SimpleQueue[tuple[Ask, Reply, chat.Answer]] = queue.SimpleQueue()
        in_flight: dict[str, tuple[Ask, float]] = {}
        stopped: str | None = None
        while waiting or in_flight:
            while waiting and stopped is None and len(in_flight) < max(1, self.config.parallel):
                if self._spent(tuple(ask for ask, _ in in_flight.values())):
                    if not in_flight:
                        stopped = self._budget_line()
                    break
                ask = waiting.pop(0)
                in_flight[ask.ask_id] = (ask, time.monotonic() + self.config.ask_deadline_s + GRACE_S)
                threading.Thread(target=self._work, args=(ask, done), name=ask.ask_id, daemon=True).start()
            if not in_flight:
                break
            for ask, reply, last in self._arrivals(done, in_flight):
                del in_flight[ask.ask_id]
                if last.fatal:
                    stopped = stopped or self._blame(last)
                else:
                    on_reply(reply)
        if stopped is not None:
            raise DesignerStopped(stopped)

    def _arrivals(
        self,
        done: queue.SimpleQueue[tuple[Ask, Reply, chat.Answer]],
        in_flight: dict[str, tuple[Ask, float]],
    ) -> list[tuple[Ask, Reply, chat.Answer]]:
        """Waits for one reply; where a request outlived its deadline instead, those overdue as timeouts."""
        nearest = min(until for _, until in in_flight.values())
        try:
            ask, reply, last = done.get(timeout=max(0.0, nearest - time.monotonic()))
        except queue.Empty:
            now = time.monotonic()
            late = chat.Answer("timeout", error=f"no complete reply within {self.config.ask_deadline_s:g} s")
            overdue = [ask for ask, until in in_flight.values() if until <= now]
            return [(ask, self._reply(ask, late, 0, 0, self.config.ask_deadline_s), late) for ask in overdue]
        # A reply that was given up as overdue may still come; its ask has been answered.
        return [(ask, reply, last)] if ask.ask_id in in_flight else []

    def _work(self, ask: Ask, done: queue.SimpleQueue[tuple[Ask, Reply, chat.Answer]]) -> None:
        """One ask in its own thread; whatever happens, exactly one item is put into `done`."""
        try:
            done.put((ask, *self._converse(ask)))
        except Exception as error:  # a fault of ours: it must become that ask's outcome, or `answer` waits for it
            fault = chat.Answer("malformed", error=f"{type(error).__name__}: {self._clean(chat.one_line(error))}")
            done.put((ask, self._reply(ask, fault, 0, 0, None), fault))

    def _converse(self, ask: Ask) -> tuple[Reply, chat.Answer]:
        """Tries until there is a reply, nothing more to hope for, or no time left."""
        started = time.monotonic()
        deadline = started + self.config.ask_deadline_s
        rng = random.Random(ask.ask_id)
        tokens_in = tokens_out = 0
        second_chance = True
        attempt = 0
        while True:
            limit_s = min(self.config.request_timeout_s, deadline - time.monotonic())
            last, _ = self._exchange("post", "/chat/completions", self._payload(ask), limit_s)
            self._count(ask, last)
            tokens_in, tokens_out = tokens_in + (last.tokens_in or 0), tokens_out + (last.tokens_out or 0)
            again = (last.transient and attempt < self.config.retries) or (last.once and second_chance)
            if not again or (self._spent(()) and not last.transient):
                break
            second_chance = second_chance and not last.once
            wait = last.retry_after_s if last.retry_after_s is not None else self._back_off.wait_s(attempt, rng)
            if time.monotonic() + wait >= deadline:
                note = f"{last.error}; the next try would be {wait:.0f} s from now, past the deadline"
                last = replace(last, error=note)
                break
            time.sleep(wait)
            attempt += 1
        return self._reply(ask, last, tokens_in, tokens_out, time.monotonic() - started), last

    def _payload(self, ask: Ask) -> dict[str, Any]:
        """The request's body. Only what was asked for is sent: models refuse settings they do not know."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in ask.messages],
        }
        if self.config.temperature is not None:
            body["temperature"] = self.config.temperature
        if self.config.max_reply_tokens is not None:
            body["max_completion_tokens"] = self.config.max_reply_tokens
        return body

    def _reply(self, ask: Ask, last: chat.Answer, tokens_in: int, tokens_out: int, latency_s: float | None) -> Reply:
        prices = (self.config.price_in, self.config.price_out)
        priced = any(price is not None for price in prices)
        cost = (tokens_in * (prices[0] or 0.0) + tokens_out * (prices[1] or 0.0)) / 1e6 if priced else None
        return Reply(
            ask_id=ask.ask_id,
            text=last.text,
            outcome=last.outcome,
            model=last.model or self.model,
            tokens_in=tokens_in or last.tokens_in,
            tokens_out=tokens_out or last.tokens_out,
            cost=cost,
            latency_s=latency_s,
            error=self._clean(last.error) if last.error else None,
        )

    # -- the budget

    def _count(self, ask: Ask, last: chat.Answer) -> None:
        """Adds one exchange to the tokens spent; estimated where a reply came without a count."""
        tokens = (last.tokens_in or 0) + (last.tokens_out or 0)
        if last.text and last.tokens_in is None and last.tokens_out is None:
            tokens = _prompt_tokens(ask) + len(last.text) // CHARACTERS_PER_TOKEN
        with self._tokens_lock:
            self.tokens_used += tokens

    def _spent(self, in_flight: Sequence[Ask]) -> bool:
        """Whether the budget is used up, the prompts of requests in flight counted by their length."""
        budget = self.config.max_tokens_total
        if budget is None:
            return False
        with self._tokens_lock:
            return self.tokens_used + sum(_prompt_tokens(ask) for ask in in_flight) >= budget

    def _budget_line(self) -> str:
        return (
            f"the token budget is spent: {self.tokens_used} of {self.config.max_tokens_total} tokens used. "
            "Raise --max-tokens-total and go on with --resume."
        )

    # -- one exchange

    def _client(self) -> Any:
        if self._connection is None:
            import openai

            # Proxies from the environment would be used even for an endpoint on this machine.
            transport = openai.DefaultHttpxClient(trust_env=False) if chat.is_loopback(self.base_url) else None
            self._connection = openai.OpenAI(
                api_key=self._key, base_url=self.base_url, max_retries=0, http_client=transport
            )
        return self._connection

    def _exchange(self, method: str, path: str, body: dict[str, Any], limit_s: float) -> tuple[chat.Answer, bytes]:
        """One request and its whole answer within `limit_s`, as an `Answer`; the raw body beside it."""
        import openai

        client = self._client()
        until = time.monotonic() + limit_s
        try:
            if method == "get":
                pending = client.models.with_streaming_response
                call = (
                    pending.list(timeout=limit_s)
                    if path == "/models"
                    else pending.retrieve(path.removeprefix("/models/"), timeout=limit_s)
                )
            else:
                call = client.chat.completions.with_streaming_response.create(**body, timeout=limit_s)
            with call as response:
                raw = _read(response, until)
        except (openai.APITimeoutError, TimeoutError):
            return chat.Answer("timeout", error=f"no complete answer within {limit_s:.0f} s", transient=True), b""
        except openai.APIStatusError as error:
            body_or_text = error.body if error.body is not None else error.response.text
            return chat.failure(error.status_code, error.response.headers, body_or_text), b""
        except (openai.APIConnectionError, _transport_error(openai)) as error:
            if "timeout" in type(error).__name__.lower():
                return chat.Answer("timeout", error=f"no answer within {limit_s:.0f} s", transient=True), b""
            cause = error.__cause__ or error
            text = f"connection failed ({type(cause).__name__}: {self._clean(chat.one_line(cause))})"
            return chat.Answer("network", error=text, transient=True), b""
        except OverflowError as error:
            return chat.Answer("malformed", error=str(error)), b""
        if method == "get":
            try:
                chat.read_body(raw)
            except ValueError as error:
                return chat.Answer("malformed", error=str(error)), b""
            return chat.Answer("ok"), raw
        return chat.completion(raw), raw

    # -- words

    def _place(self) -> str:
        """The endpoint, without a user name or password that its address may hold."""
        return re.sub(r"//[^/@]*@", "//", self.base_url)

    def _blame(self, answer: chat.Answer) -> str:
        return self._clean(f"{self._place()}, model {self.model!r}: {answer.error}; {chat.setting_to_change(answer)}.")

    def _clean(self, text: str) -> str:
        """`text` without the key, in case an endpoint repeats it: whole, cut off, or with stars in it.

        A key of less than `SECRET_LENGTH` characters is a placeholder for an endpoint that needs none.
        """
        if len(self._key) >= SECRET_LENGTH:
            text = re.sub(re.escape(self._key[:SECRET_LENGTH]) + r"[^\s'\"]*", "[key]", text)
        return re.sub(r"\bsk-[\w*.-]{6,}", "[key]", text)


def _read(response: Any, until: float) -> bytes:
    """The whole body, read piece by piece.

    Raises:
        TimeoutError: it did not end by the monotonic time `until`.
        OverflowError: it is larger than `BODY_LIMIT`.
    """
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > BODY_LIMIT:
            raise OverflowError(f"the answer is longer than {BODY_LIMIT // 2**20} MiB")
        if time.monotonic() > until:
            raise TimeoutError("the answer did not end in time")
        parts.append(part)
    return b"".join(parts)


def _transport_error(openai: Any) -> type[Exception]:
    """What the HTTP library beneath the client raises while a body is read; the client does not wrap it."""
    library = next(base.__module__ for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
    return importlib.import_module(library.split(".")[0]).RequestError


def _prompt_tokens(ask: Ask) -> int:
    return sum(len(message.content) for message in ask.messages) // CHARACTERS_PER_TOKEN
