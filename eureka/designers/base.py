"""What a designer is asked, what it answers, and the protocol all designers keep.

Asks and replies carry their id: nothing is matched by position, so replies may come back in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from eureka.candidate import Candidate
from tasks.errors import UserError
from tasks.signals import SignalTable

Role = Literal["system", "user", "assistant"]
Outcome = Literal[
    "ok",
    "empty",
    "truncated",
    "refused",
    "filtered",
    "malformed",
    "rate_limited",
    "quota",
    "auth",
    "bad_request",
    "server",
    "network",
    "timeout",
]


@dataclass(frozen=True)
class Message:
    """One message of a conversation, as chat endpoints have it."""

    role: Role
    content: str


@dataclass(frozen=True)
class DesignContext:
    """What a search knows when it asks, for designers that compose programs themselves.

    Attributes:
        task_name: registered name or path of the task.
        instruction: what the robot shall do, in words.
        signal_table: the signals a program may take.
        signal_scales: signal name -> standard deviation of each dimension over sampled states, in its unit.
        history: the candidates of earlier generations, failures included; of a long search the best and the newest
            failures (`eureka.archive.HISTORY`).
        best: the best candidate so far, by held-out fitness.
        best_components: component name -> {"mean", "min", "max", ...} at the end of the best's training.
        generation, index: which sample is asked for; generations count from 1.
        samples: how many samples the generation has.
        seed: the search's seed.
        feedback: what a person said of the best so far, if anybody did.
    """

    task_name: str
    instruction: str
    signal_table: SignalTable
    signal_scales: dict[str, list[float]] = field(default_factory=dict)
    history: tuple[Candidate, ...] = ()
    best: Candidate | None = None
    best_components: dict[str, Any] | None = None
    generation: int = 1
    index: int = 0
    samples: int = 1
    seed: int = 0
    feedback: str | None = None


@dataclass(frozen=True)
class Ask:
    """One request for one reward program.

    Attributes:
        ask_id: "g03_c07_r0"; the number after r counts the attempts for this candidate.
        candidate_id: the candidate it is for.
        attempt: 0 for the first request, 1.. for repairs.
        messages: the whole conversation to send.
        context: what the search knows.
        previous: the reply that is to be repaired.
        problems: what the gate said about it.
    """

    ask_id: str
    candidate_id: str
    attempt: int
    messages: tuple[Message, ...]
    context: DesignContext
    previous: str | None = None
    problems: str | None = None


@dataclass(frozen=True)
class Reply:
    """What came back for one ask: the raw text, or why there is none.

    Attributes:
        ask_id: the ask it answers.
        text: the raw reply, kept even when `outcome` is "truncated".
        outcome: "ok", or the kind of failure.
        model: which model wrote it, as the endpoint names it.
        tokens_in, tokens_out: tokens billed for it, all tries together; None where nobody tells.
        cost: in the currency of the configured prices; None without prices.
        latency_s: wall time from the first try to the reply.
        error: one line on what went wrong.
    """

    ask_id: str
    text: str | None
    outcome: Outcome
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    latency_s: float | None = None
    error: str | None = None

    @property
    def usable(self) -> bool:
        """Whether there is text that the gate can judge."""
        return bool(self.text and self.text.strip()) and self.outcome in ("ok", "truncated")


@dataclass(frozen=True)
class Exchange:
    """One request to an endpoint and what it brought, before anything in it was read.

    Attributes:
        ask_id: the ask it was made for.
        status: HTTP status; None where no answer began.
        body: the bytes that came, without the endpoint's key; at most `eureka.designers.transport.BODY_LIMIT`.
        complete: whether `body` is the whole answer.
        error: one line on what went wrong on the way.
        wall_s: seconds it took.
    """

    ask_id: str
    status: int | None
    body: bytes
    complete: bool
    error: str | None
    wall_s: float


class ExchangeStore(Protocol):
    """Where exchanges are kept before they are read."""

    def add_exchange(self, exchange: Exchange) -> None:
        """Stores one; what this acknowledged survives a kill."""
        ...

    def last_exchange(self, ask_id: str) -> Exchange | None:
        """The latest one of an ask."""
        ...


class DesignerStopped(UserError):
    """The designer cannot go on (quota, key, budget, time). What had arrived was delivered before.

    Args:
        line: what happened, and how to go on.
        outcome: of the request that made it stop; None where it was none.
    """

    def __init__(self, line: str, outcome: Outcome | None = None) -> None:
        super().__init__(line)
        self.outcome: Outcome | None = outcome


class Designer(Protocol):
    """Someone who writes reward programs."""

    @property
    def name(self) -> str:
        """The name it is chosen by."""
        ...

    def check(self) -> None:
        """One cheap check before anything is trained.

        Raises:
            UserError: one line that names the setting to change.
        """
        ...

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """Answers `asks`: calls `on_reply` at most once per ask, in any order, as each reply arrives.

        `on_reply` is always called from the thread that called `answer`, so it may write to a database.

        Raises:
            DesignerStopped: it cannot go on; what had arrived was delivered, asks without a reply stay open.
        """
        ...


@runtime_checkable
class StoringDesigner(Designer, Protocol):
    """A designer that pays for its replies, and therefore has them stored before it reads them."""

    def store_in(self, store: ExchangeStore) -> None:
        """Names the store; a complete answer that it holds for an open ask is read instead of paid for again."""
        ...


@dataclass(frozen=True)
class DesignerConfig:
    """Who writes the rewards, and how it is reached."""

    designer: str = "auto"
    """auto (openai where OPENAI_API_KEY is set, else evolution), openai, evolution, manual or replay."""
    model: str | None = None
    """Model name that the endpoint is asked for, such as gpt-5; OPENAI_MODEL when not given."""
    base_url: str | None = None
    """Chat-completions endpoint, ending in /v1 as a rule; OPENAI_BASE_URL when not given."""
    temperature: float | None = None
    """Sampling temperature; not sent unless given, since some models refuse it."""
    max_tokens_total: int | None = None
    """Token budget of the whole search, prompts and replies together; asking stops once it is spent."""
    max_reply_tokens: int | None = None
    """Most tokens of one reply (max_completion_tokens); not sent unless given."""
    parallel: int = 8
    """Requests in flight at once."""
    request_timeout_s: float = 180.0
    """Seconds one request may take in total."""
    ask_deadline_s: float = 600.0
    """Seconds one reply may take in total, retries and waiting included."""
    max_retry_after_s: float = 300.0
    """Longest wait that an endpoint may ask for (Retry-After); beyond it the search stops, to be resumed later."""
    retries: int = 5
    """Further tries after a failure that may pass: 429, 408, 409, 5xx, dropped connection, timeout."""
    price_in: float | None = None
    """Price of one million prompt tokens; only for the cost column."""
    price_out: float | None = None
    """Price of one million reply tokens; only for the cost column."""
    replay_from: Path | None = None
    """Recorded search for the replay designer: an exported folder, or a search folder with its search.db."""
    manual_poll_s: float = 1.0
    """Seconds between two looks for reply files of the manual designer."""
    manual_settle_s: float = 3.0
    """Seconds a reply file has to stay unchanged before it is read; ten times that while it holds no whole program."""
    manual_timeout_s: float | None = None
    """Seconds the manual designer waits for replies; forever when not given."""
    manual_paste: bool = False
    """Manual designer: read replies pasted into the terminal, each ended by a line that holds only END."""
