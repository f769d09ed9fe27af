"""Many asks to one endpoint at once: retries, deadlines, a budget, a circuit breaker; replies as they arrive.

One thread makes one request. Everything else happens in the thread that called `run`: what came is stored, then read,
then decided on. A request that outlives its time all the same (the look-up of a host's name) is given up.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from eureka.designers import chat
from eureka.designers.base import Ask, DesignerConfig, DesignerStopped, Exchange, ExchangeStore, Reply
from eureka.designers.retrying import BackOff, Breaker
from eureka.designers.transport import Received

OUTAGES = ("server", "network", "timeout", "malformed")
"""Outcomes of a request that may be due to an endpoint that is down or is none. Who limits a rate is there."""
GRACE_S = 2.0  # how long after its time a request may still end by itself
JITTER = 0.1  # share of a wait asked for by the server that may be added


@dataclass
class Conversation:
    """One ask on its way to a reply."""

    ask: Ask
    rng: random.Random
    ready_s: float = 0.0
    """Monotonic time of the next try."""
    started_s: float | None = None
    deadline_s: float = float("inf")
    attempt: int = 0
    second_chance: bool = True
    tokens_in: int = 0
    tokens_out: int = 0
    last: chat.Answer = field(default_factory=lambda: chat.Answer("network", error="nothing was sent"))


class Endpoint(Protocol):
    """What the loop needs of the designer it works for."""

    config: DesignerConfig

    def send(self, ask: Ask, limit_s: float) -> Received:
        """Makes one request, over within `limit_s`; called from many threads."""
        ...

    def count(self, ask: Ask, answer: chat.Answer) -> None:
        """Adds one answer to the tokens spent."""
        ...

    def spent(self, in_flight: Sequence[Ask]) -> bool:
        """Whether the token budget is used up, with these requests on their way."""
        ...

    def budget_line(self) -> str:
        """What to say then."""
        ...

    def blame(self, answer: chat.Answer, way_out: str | None = None) -> str:
        """One line on a failure, and what to do."""
        ...

    def reply(self, conversation: Conversation) -> Reply:
        """The reply made of a conversation's last answer."""
        ...


class Asking:
    """One batch of asks.

    Args:
        endpoint: where they go.
        store: keeps what comes before it is read; None keeps nothing.
        back_off: waiting between tries.
        breaker: knows whether the endpoint is down.
    """

    def __init__(self, endpoint: Endpoint, store: ExchangeStore | None, back_off: BackOff, breaker: Breaker) -> None:
        self._endpoint = endpoint
        self._config = endpoint.config
        self._store = store
        self._back_off = back_off
        self._breaker = breaker
        self._waiting: list[Conversation] = []
        self._in_flight: dict[int, tuple[Conversation, float]] = {}
        self._done: queue.SimpleQueue[tuple[int, Ask, Received]] = queue.SimpleQueue()
        self._numbers = 0
        self._hold_until = 0.0
        self._stop: DesignerStopped | None = None

    def run(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """Sends every ask and delivers each reply as it arrives.

        Raises:
            DesignerStopped: going on is pointless. No further request was made, those in flight were waited for and
                delivered; asks that failed in this way got no reply.
        """
        for ask in asks:
            conversation = Conversation(ask, random.Random(ask.ask_id))
            if self._recall(conversation):
                on_reply(self._endpoint.reply(conversation))
            else:
                self._waiting.append(conversation)
        try:
            while self._in_flight or (self._waiting and self._stop is None):
                self._start_ready()
                for conversation in [*self._hopeless(), *self._arrived()]:
                    self._deliver(conversation, on_reply)
        except KeyboardInterrupt:
            self._keep_arrived()
            raise
        if self._stop is not None:
            raise self._stop

    def _recall(self, conversation: Conversation) -> bool:
        """Takes a whole answer from the store that a killed search had paid for and not read."""
        kept = self._store.last_exchange(conversation.ask.ask_id) if self._store else None
        if kept is None or not kept.complete or kept.status != 200:
            return False
        answer = _read(Received(kept.status, {}, kept.body))
        if not chat.holds_reply(answer):
            return False
        conversation.last = answer
        self._tally(conversation)
        return True

    # -- sending

    def _start_ready(self) -> None:
        """Starts requests for which there is time, room and budget."""
        if self._waiting and not self._in_flight and self._stop is None and self._over_budget():
            self._stop = DesignerStopped(self._endpoint.budget_line())
        now = time.monotonic()
        if self._stop is not None or now < self._pause_until():
            return
        # Those that were tried come first: their deadline runs.
        self._waiting.sort(key=lambda c: (c.started_s is None, c.ready_s))
        for conversation in [c for c in self._waiting if c.ready_s <= now]:
            if self._room() < 1 or self._over_budget():
                return
            self._waiting.remove(conversation)
            self._start(conversation, now)

    def _start(self, conversation: Conversation, now: float) -> None:
        if conversation.started_s is None:
            conversation.started_s = now
            conversation.deadline_s = now + self._config.ask_deadline_s
        limit_s = min(self._config.request_timeout_s, max(0.001, conversation.deadline_s - now))
        self._numbers += 1
        self._in_flight[self._numbers] = (conversation, now + limit_s + GRACE_S)
        arguments = (self._numbers, conversation.ask, limit_s)
        threading.Thread(target=self._request, args=arguments, name=conversation.ask.ask_id, daemon=True).start()

    def _request(self, number: int, ask: Ask, limit_s: float) -> None:
        """In a thread of its own; whatever happens, exactly one item is put into the queue."""
        try:
            received = self._endpoint.send(ask, limit_s)
        except Exception as error:  # a fault of ours: it must become this ask's outcome, or `run` waits for it
            fault = f"{type(error).__name__}: {chat.one_line(error)}"
            received = Received(problem="encoding", note=f"the request could not be made ({fault})")
        self._done.put((number, ask, received))

    def _room(self) -> int:
        """Requests that may be added to those in flight."""
        return (1 if self._breaker.is_open else max(1, self._config.parallel)) - len(self._in_flight)

    def _over_budget(self) -> bool:
        return self._endpoint.spent([conversation.ask for conversation, _ in self._in_flight.values()])

    def _pause_until(self) -> float:
        """Nothing is sent before: the endpoint asked for it, or is down."""
        return max(self._hold_until, self._breaker.pause_until)

    # -- receiving

    def _arrived(self) -> list[Conversation]:
        """Waits for something to do; conversations that came to their end."""
        if not self._in_flight and (self._stop is not None or not self._waiting):
            return []
        try:
            number, ask, received = self._done.get(timeout=max(0.0, self._next_event_s() - time.monotonic()))
        except queue.Empty:
            now = time.monotonic()
            overdue = [number for number, (_, until) in self._in_flight.items() if until <= now]
            note = f"no complete answer within {self._config.request_timeout_s:g} s"
            found = [(number, Received(problem="timeout", note=note)) for number in overdue]
        else:
            self._keep(ask, received)
            found = [(number, received)] if number in self._in_flight else []  # not one that was given up
        ended = []
        for number, received in found:
            conversation, _ = self._in_flight.pop(number)
            if self._settle(conversation, received):
                ended.append(conversation)
        return ended

    def _next_event_s(self) -> float:
        """The next moment at which something is to be done even if nothing arrives."""
        events = [until for _, until in self._in_flight.values()]
        if self._stop is None:
            events += [c.deadline_s for c in self._waiting]
            if self._room() > 0 and not self._over_budget():
                events += [max(c.ready_s, self._pause_until()) for c in self._waiting]
        return min(events, default=0.0)

    def _settle(self, conversation: Conversation, received: Received) -> bool:
        """Takes in one answer; whether the conversation has ended. Else it waits for its next try, or all stop."""
        now = time.monotonic()
        answer = conversation.last = _read(received)
        self._tally(conversation)
        if answer.outcome in OUTAGES:
            self._breaker.failed(conversation.ask.ask_id, now)
        elif answer.outcome != "rate_limited":
            self._breaker.answered()
        if answer.fatal:
            self._end(answer)
            return False
        if answer.transient and (answer.retry_after_s or 0.0) > self._config.max_retry_after_s:
            way_out = (
                f"it asks for a wait of {answer.retry_after_s:.0f} s: go on with --resume after that, or raise "
                f"--max-retry-after-s, which is {self._config.max_retry_after_s:g}"
            )
            self._end(answer, way_out)
            return False
        once = answer.once and conversation.second_chance and not self._endpoint.spent([])
        if not once and not (answer.transient and conversation.attempt < self._config.retries):
            return True
        conversation.second_chance = conversation.second_chance and not answer.once
        wait_s = self._back_off.wait_s(conversation.attempt, conversation.rng)
        if answer.retry_after_s is not None:
            asked_s = answer.retry_after_s * (1.0 + JITTER * conversation.rng.random())
            wait_s = max(asked_s, min(wait_s, self._back_off.first_s))  # some servers ask for 0 s over and over
            self._hold_until = max(self._hold_until, now + answer.retry_after_s)
        conversation.ready_s = now + wait_s
        conversation.attempt += 1
        self._waiting.append(conversation)
        return False

    def _hopeless(self) -> list[Conversation]:
        """Takes out conversations whose next try would be past their deadline."""
        now = time.monotonic()
        earliest = max(now, self._pause_until())
        late = [c for c in self._waiting if max(c.ready_s, earliest) >= c.deadline_s] if self._stop is None else []
        for conversation in late:
            self._waiting.remove(conversation)
            wait_s = max(conversation.ready_s, earliest) - now
            note = f"{conversation.last.error}; the next try would be {wait_s:.0f} s from now, past the deadline"
            conversation.last = replace(conversation.last, error=note)
        return late

    def _deliver(self, conversation: Conversation, on_reply: Callable[[Reply], None]) -> None:
        """Hands over a reply. One that is none because the endpoint is down leaves its ask open, and ends it all."""
        if self._breaker.is_open and conversation.last.outcome in OUTAGES:
            way_out = f"{self._breaker.failures} requests in a row failed: go on with --resume when it answers again"
            self._end(conversation.last, way_out)
        else:
            on_reply(self._endpoint.reply(conversation))

    def _end(self, answer: chat.Answer, way_out: str | None = None) -> None:
        """No further request is made; the first reason is the one that is told."""
        if self._stop is None:
            self._stop = DesignerStopped(self._endpoint.blame(answer, way_out), answer.outcome)

    # -- keeping

    def _keep(self, ask: Ask, received: Received) -> None:
        if self._store is not None:
            whole = received.status is not None and received.problem is None
            error = received.note or None
            self._store.add_exchange(
                Exchange(ask.ask_id, received.status, received.body, whole, error, received.wall_s)
            )

    def _keep_arrived(self) -> None:
        """Stores what is there and has not been looked at, so that it is not paid for again."""
        while True:
            try:
                _, ask, received = self._done.get_nowait()
            except queue.Empty:
                return
            self._keep(ask, received)

    def _tally(self, conversation: Conversation) -> None:
        """Adds the last answer to what the conversation and the search have spent."""
        conversation.tokens_in += conversation.last.tokens_in or 0
        conversation.tokens_out += conversation.last.tokens_out or 0
        self._endpoint.count(conversation.ask, conversation.last)


def _read(received: Received) -> chat.Answer:
    """What was received, understood; whatever it is."""
    try:
        return chat.understand(received)
    except Exception as error:  # a fault of ours that one answer brings out must not end the search
        return chat.Answer("malformed", error=f"the answer could not be read ({type(error).__name__})")
