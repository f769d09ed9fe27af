"""A planner behind any OpenAI-compatible chat endpoint that takes pictures: the goal, the list of instructions and what
the cameras show go in, one subtask as JSON comes out.

It keeps the planner's protocol (`distill.planner`) and stands on this floor because HTTP does: one exchange is bounded
by `designers.transport`, understood by `designers.chat`, and the key is taken out by `designers.redaction`. Answers are
asked for by a JSON schema where the endpoint has structured outputs, and validated always; an answer that is none is
sent back once with what was wrong.

One call of `plan` is over within `deadline_s`, waits for other tries included. Nobody waits for it but its own thread.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.planner import Picture, PlannerError, Subtask, Turn, Vocabulary, parse_until
from eureka.designers import chat, key
from eureka.designers.openai import DEFAULT_BASE_URL
from eureka.designers.redaction import Redaction
from eureka.designers.retrying import BackOff
from eureka.designers.transport import Received, Wire
from eureka.prompts import planner_messages
from tasks.errors import UserError

TURNS_TOLD = 12
"""Subtasks of the history that a prompt lists, the newest."""
FIRST_BACK_OFF = BackOff(first_s=0.3, longest_s=5.0)
"""A body waits: shorter than a designer's."""


@dataclass(frozen=True)
class PlannerConfig:
    """How the endpoint is asked."""

    model: str | None = None
    """Model name, one that sees pictures; OPENAI_MODEL when not given."""
    base_url: str | None = None
    """Chat-completions endpoint, ending in /v1 as a rule; OPENAI_BASE_URL when not given."""
    request_timeout_s: float = 20.0
    """Seconds one request may take."""
    deadline_s: float = 30.0
    """Seconds one answer may take, retries and waiting included."""
    retries: int = 2
    """Further tries after a failure that may pass, or an answer that is no subtask."""
    max_tokens_total: int | None = None
    """Token budget of the run, prompts and replies together; the planner stops once it is spent."""
    max_reply_tokens: int | None = None
    """Most tokens of one reply (max_completion_tokens); not sent unless given."""
    temperature: float | None = None
    """Not sent unless given, since some models refuse it."""
    image_detail: str | None = None
    """low, high or auto, where the endpoint knows it; not sent unless given."""

    def __post_init__(self) -> None:
        if not (self.request_timeout_s > 0 and self.deadline_s > 0 and self.retries >= 0):
            raise UserError(
                f"the planner's times are {self.request_timeout_s} and {self.deadline_s} s with {self.retries} "
                "retries; expected times above 0 and at least 0 retries."
            )
        if self.image_detail not in (None, "low", "high", "auto"):
            raise UserError(f"image detail is '{self.image_detail}'; expected low, high or auto.")


def subtask_schema(names: Sequence[str], free: bool) -> dict[str, Any]:
    """The JSON schema of an answer. Instructions are one of `names`, unless `free`."""
    instruction = {"type": "string"} if free else {"type": "string", "enum": list(names)}
    until = {"anyOf": [{"type": "number"}, {"type": "string", "enum": ["planner decides"]}]}
    fields = {"note": {"type": "string"}, "instruction": instruction, "until": until}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def read_subtask(text: str, vocabulary: Vocabulary) -> Subtask:
    """The subtask in a reply: the first JSON object in it.

    Raises:
        UserError: there is none, it has other fields, or an instruction that the body was not taught.
    """
    start = text.find("{")
    try:
        data, _ = json.JSONDecoder().raw_decode(text[start:]) if start >= 0 else (None, 0)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the reply holds no JSON object ({chat.one_line(error, 80)}).") from None
    if not isinstance(data, dict):
        raise UserError("the reply holds no JSON object.")
    instruction, note = data.get("instruction"), data.get("note", "")
    if not isinstance(instruction, str):
        raise UserError(f"the reply's instruction is {chat.one_line(repr(instruction), 60)}, expected text.")
    until = parse_until(data.get("until"))
    return Subtask(vocabulary.checked(instruction), until, chat.one_line(note) if isinstance(note, str) else "")


class OpenAIPlanner:
    """Asks a chat endpoint what the body shall do next."""

    name = "openai"
    wants_images = True

    def __init__(self, config: PlannerConfig, vocabulary: Vocabulary, *, api_key: str | None = None) -> None:
        """
        Args:
            config: Model, endpoint, limits.
            vocabulary: What the body can be told.
            api_key: The key; OPENAI_API_KEY when not given. It appears in no message.

        Raises:
            UserError: no key, no model, or an address that is none.
        """
        self.config, self._vocabulary = config, vocabulary
        self.model = (config.model or os.environ.get("OPENAI_MODEL", "")).strip()
        self.base_url = (config.base_url or os.environ.get("OPENAI_BASE_URL", "")).strip() or DEFAULT_BASE_URL
        secret = (api_key if api_key is not None else key.api_key()).strip()
        self._check(secret)
        self._redaction = Redaction(secret)
        trust_env = not chat.is_loopback(self.base_url)
        self._wire = Wire(self.base_url, secret, self._redaction, trust_env=trust_env)
        self._structured = True
        self._closed = threading.Event()
        self._rng = random.Random(0)
        self._spent = {"requests": 0, "tokens_in": 0, "tokens_out": 0, "repairs": 0}

    def plan(self, images: Sequence[Picture], goal: str, history: Sequence[Turn]) -> Subtask:
        """One answer of the endpoint. Raises PlannerError; it is final where asking again is pointless."""
        deadline = time.monotonic() + self.config.deadline_s
        messages = self._messages(images, goal, history)
        kind, text = "network", "nothing was sent"
        for attempt in range(self.config.retries + 1):
            answer = self._exchange(messages, deadline)
            if chat.holds_reply(answer) and answer.text:
                try:
                    return read_subtask(self._redaction.text(answer.text), self._vocabulary)
                except UserError as error:
                    kind, text = "no_subtask", str(error)
                self._spent["repairs"] += 1
                messages = [*messages[:2], *_repair(answer.text, text)]
                continue
            kind, text = answer.outcome, self._redaction.line(answer.error or "no reply")
            if answer.fatal:
                raise PlannerError(f"{text}; {chat.setting_to_change(answer)}", final=True, kind=kind)
            if not (answer.transient or answer.once) or attempt == self.config.retries:
                break
            wait_s = FIRST_BACK_OFF.wait_s(attempt, self._rng) if answer.retry_after_s is None else answer.retry_after_s
            if time.monotonic() + wait_s >= deadline:
                text += f"; the next try would be {wait_s:.0f} s from now, past the deadline"
                break
            self._closed.wait(wait_s)
        raise PlannerError(text, kind=kind)

    def facts(self) -> Mapping[str, Any]:
        """Requests and tokens so far, and how answers are asked for."""
        return {"model": self.model, "structured_outputs": self._structured, **self._spent}

    def close(self) -> None:
        """No further try is made."""
        self._closed.set()

    def _exchange(self, messages: list[dict[str, Any]], deadline: float) -> chat.Answer:
        """One request, understood; once more without a schema where the endpoint has no structured outputs."""
        self._afford()
        answer = self._send(messages, deadline)
        if answer.outcome == "bad_request" and self._structured and not answer.fatal:
            self._structured = False
            answer = self._send(messages, deadline)
            # It was not the schema: the next question asks by it again.
            self._structured = answer.outcome == "bad_request"
        return answer

    def _send(self, messages: list[dict[str, Any]], deadline: float) -> chat.Answer:
        left_s = deadline - time.monotonic()
        if self._closed.is_set() or left_s <= 0.0:
            return chat.Answer("timeout", error=f"no answer within {self.config.deadline_s:g} s")
        received: Received = self._wire.complete(self._payload(messages), min(self.config.request_timeout_s, left_s))
        answer = chat.understand(received)
        self._spent["requests"] += 1
        self._spent["tokens_in"] += answer.tokens_in or 0
        self._spent["tokens_out"] += answer.tokens_out or 0
        return answer

    def _payload(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The request's body. Only what was asked for is sent: models refuse settings they do not know."""
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        if self._structured:
            schema = subtask_schema(self._vocabulary.names, self._vocabulary.free)
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "subtask", "strict": True, "schema": schema},
            }
        if self.config.temperature is not None:
            body["temperature"] = self.config.temperature
        if self.config.max_reply_tokens is not None:
            body["max_completion_tokens"] = self.config.max_reply_tokens
        return body

    def _messages(self, images: Sequence[Picture], goal: str, history: Sequence[Turn]) -> list[dict[str, Any]]:
        system, user = planner_messages(goal, self._vocabulary.names, self._vocabulary.free, history[-TURNS_TOLD:])
        parts: list[dict[str, Any]] = [{"type": "text", "text": user}]
        for image in images:
            parts.append({"type": "text", "text": f"camera {image.camera}:"})
            url = {"url": f"data:image/jpeg;base64,{base64.b64encode(image.jpeg).decode()}"}
            if self.config.image_detail is not None:
                url["detail"] = self.config.image_detail
            parts.append({"type": "image_url", "image_url": url})
        return [{"role": "system", "content": system}, {"role": "user", "content": parts}]

    def _afford(self) -> None:
        budget = self.config.max_tokens_total
        spent = self._spent["tokens_in"] + self._spent["tokens_out"]
        if budget is not None and spent >= budget:
            raise PlannerError(
                f"the token budget is spent: {spent} of {budget} tokens used; raise --max-tokens-total",
                final=True,
                kind="budget",
            )

    def _check(self, secret: str) -> None:
        if not secret:
            raise UserError(
                "OPENAI_API_KEY is not set: set it to your key (to any word where the endpoint needs none), or use "
                "--planner oracle, which needs no key."
            )
        if not (secret.isascii() and secret.isprintable()):
            raise UserError("OPENAI_API_KEY holds characters that cannot be sent: set it to the key alone.")
        if not self.model:
            raise UserError(
                "the openai planner has no model: name one that sees pictures with --model or OPENAI_MODEL."
            )
        if not re.match(r"https?://[^/]+", self.base_url):
            raise UserError(f"OPENAI_BASE_URL is '{self.base_url[:80]}': expected http://HOST/v1 or https://HOST/v1.")


def _repair(reply: str, wrong: str) -> list[dict[str, Any]]:
    """What is said to an answer that is no subtask."""
    return [
        {"role": "assistant", "content": chat.one_line(reply, 2000)},
        {"role": "user", "content": f"That cannot be carried out: {wrong} Answer with one JSON object as described."},
    ]
