"""Rewards written by an LLM behind any OpenAI-compatible chat endpoint.

Settings, the check before anything trains, what is sent, the token budget and the words for people; `asking` makes the
requests, `transport` bounds each of them, `chat` reads the answers. It does not stream, use tools, or ask for several
choices at once (many servers ignore `n`).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from eureka.designers import chat, key
from eureka.designers.asking import Asking, Conversation
from eureka.designers.base import Ask, DesignerConfig, ExchangeStore, Reply
from eureka.designers.redaction import Redaction
from eureka.designers.retrying import BackOff, Breaker
from eureka.designers.transport import Received, Wire
from tasks.errors import UserError, did_you_mean

DEFAULT_BASE_URL = "https://api.openai.com/v1"
CHECK_TIMEOUT_S = 20.0
CHARACTERS_PER_TOKEN = 4  # a rough mean for English and Python, for endpoints that report no usage


class OpenAIDesigner:
    """Asks a chat endpoint for each program, several at a time.

    Args:
        config: model, endpoint, limits; `base_url` and `model` fall back to OPENAI_BASE_URL and OPENAI_MODEL.
        tokens_used: tokens a resumed search has already paid for; they count against `max_tokens_total`.
        back_off: waiting between tries.
        breaker: when the endpoint counts as down.
        api_key: the key; OPENAI_API_KEY when not given. It appears in no message.
    """

    name = "openai"

    def __init__(
        self,
        config: DesignerConfig,
        *,
        tokens_used: int = 0,
        back_off: BackOff | None = None,
        breaker: Breaker | None = None,
        api_key: str | None = None,
    ) -> None:
        self.config = config
        self.model = (config.model or os.environ.get("OPENAI_MODEL", "")).strip()
        self.base_url = (config.base_url or os.environ.get("OPENAI_BASE_URL", "")).strip() or DEFAULT_BASE_URL
        self.tokens_used = tokens_used
        self._back_off = back_off or BackOff()
        self._key = (api_key if api_key is not None else key.api_key()).strip()
        self._breaker = breaker or Breaker()
        self._redaction = Redaction(self._key, _password(self.base_url))
        self._store: ExchangeStore | None = None
        self._connection: Wire | None = None

    def store_in(self, store: ExchangeStore) -> None:
        """Names where answers are kept before they are read; see `StoringDesigner`."""
        self._store = store

    # -- before anything is trained

    def check(self) -> None:
        """Asks the endpoint for its models: is it there, does it take the key, does it know the model?

        Raises:
            UserError: one line that names the setting to change.
        """
        self._check_settings()
        listed = self._patiently(lambda limit_s: self._wire().models(limit_s))
        answer, known = _model_list(listed)
        if answer.outcome == "bad_request" and (listed.status or 0) >= 400:
            return  # an endpoint without a list of models: the first ask will tell
        if answer.outcome != "ok":
            raise UserError(self.blame(answer))
        if not known or any(chat.same_model(self.model, name) for name in known):
            return
        single = self._patiently(lambda limit_s: self._wire().model(self.model, limit_s))
        if _model_list(single)[0].outcome == "ok":  # lists leave out aliases and private models
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
            raise UserError(f"OPENAI_BASE_URL is {self._place()!r}: expected http://HOST/v1 or https://HOST/v1.")
        try:
            self._wire()
        except ImportError as error:
            raise UserError("the openai designer needs the openai package: pip install openai") from error

    def _patiently(self, request: Callable[[float], Received]) -> Received:
        """One request of the check, tried again where that can help."""
        rng = random.Random(0)
        received = Received()
        for attempt in range(min(self.config.retries, 2) + 1):
            received = request(min(CHECK_TIMEOUT_S, self.config.request_timeout_s))
            answer = _model_list(received)[0]
            if not answer.transient:
                break
            if attempt < min(self.config.retries, 2):
                wait_s = answer.retry_after_s
                time.sleep(min(CHECK_TIMEOUT_S, self._back_off.wait_s(attempt, rng) if wait_s is None else wait_s))
        return received

    # -- asking

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """Sends every ask, up to `parallel` at once, and delivers each reply from this thread as it arrives.

        A spent quota or budget, a refused key, an unknown model, a wait longer than the user allows and an endpoint
        that is down end it: no further request is made, those in flight are waited for and delivered, and the asks
        that failed in this way get no reply, so that a resumed search asks them again.

        Raises:
            DesignerStopped: as said above, after delivering what has arrived.
        """
        self._check_settings()
        Asking(self, self._store, self._back_off, self._breaker).run(asks, on_reply)

    def send(self, ask: Ask, limit_s: float) -> Received:
        """Makes the request for one ask, over within `limit_s`."""
        return self._wire().complete(self._payload(ask), limit_s)

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

    def reply(self, conversation: Conversation) -> Reply:
        """What is told of a conversation that has ended."""
        last, started_s = conversation.last, conversation.started_s
        tokens_in, tokens_out = conversation.tokens_in, conversation.tokens_out
        prices = (self.config.price_in, self.config.price_out)
        priced = any(price is not None for price in prices)
        cost = (tokens_in * (prices[0] or 0.0) + tokens_out * (prices[1] or 0.0)) / 1e6 if priced else None
        return Reply(
            ask_id=conversation.ask.ask_id,
            text=None if last.text is None else self._redaction.text(last.text),
            outcome=last.outcome,
            model=self._redaction.line(last.model or self.model),
            tokens_in=tokens_in or last.tokens_in,
            tokens_out=tokens_out or last.tokens_out,
            cost=cost,
            latency_s=None if started_s is None else time.monotonic() - started_s,
            error=self._redaction.line(last.error) if last.error else None,
        )

    # -- the budget

    def count(self, ask: Ask, answer: chat.Answer) -> None:
        """Adds one answer to the tokens spent; estimated where a reply came without a count."""
        tokens_in, tokens_out = answer.tokens_in, answer.tokens_out
        if answer.text:
            tokens_in = _prompt_tokens(ask) if tokens_in is None else tokens_in
            tokens_out = len(answer.text) // CHARACTERS_PER_TOKEN if tokens_out is None else tokens_out
        self.tokens_used += (tokens_in or 0) + (tokens_out or 0)

    def spent(self, in_flight: Sequence[Ask]) -> bool:
        """Whether the budget is used up, the prompts of requests in flight counted by their length."""
        budget = self.config.max_tokens_total
        return budget is not None and self.tokens_used + sum(_prompt_tokens(ask) for ask in in_flight) >= budget

    def budget_line(self) -> str:
        """One line for people: what was spent, and how to go on."""
        return (
            f"the token budget is spent: {self.tokens_used} of {self.config.max_tokens_total} tokens used. "
            "Raise --max-tokens-total and go on with --resume."
        )

    # -- words

    def blame(self, answer: chat.Answer, way_out: str | None = None) -> str:
        """One line for people: endpoint, model, what it said, what to do."""
        line = f"{self._place()}, model {self.model!r}: {answer.error}; {way_out or chat.setting_to_change(answer)}."
        return self._redaction.line(line)

    def _place(self) -> str:
        """The endpoint, without a user name, password or query that its address may hold."""
        return re.sub(r"^(\w+://)?[^/@]*@", r"\1", self.base_url).partition("?")[0]

    def _wire(self) -> Wire:
        if self._connection is None:
            # Proxies from the environment would be used even for an endpoint on this machine.
            trust_env = not chat.is_loopback(self.base_url)
            self._connection = Wire(self.base_url, self._key, self._redaction, trust_env=trust_env)
        return self._connection


def _password(url: str) -> str:
    """The password in an address; empty without one."""
    found = re.match(r"\w+://[^/@:]*:([^/@]*)@", url)
    return found[1] if found else ""


def _model_list(received: Received) -> tuple[chat.Answer, list[str]]:
    """What a request for models brought: (ok or what was wrong, the models' ids)."""
    if received.status is None or received.status >= 300 or received.problem is not None:
        return chat.understand(received), []
    try:
        return chat.Answer("ok"), chat.model_ids(received.body)
    except ValueError as error:
        return chat.Answer("malformed", error=str(error)), []


def _prompt_tokens(ask: Ask) -> int:
    return sum(len(message.content) for message in ask.messages) // CHARACTERS_PER_TOKEN
