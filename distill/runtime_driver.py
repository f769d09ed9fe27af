"""System 1 as the runtime drives it: words are prepared once, in the slow loop, and acted on at every control step.

`ExpertDriver` drives an expert of a commanded task by the numbers of what it is told: no words are understood that the
task does not list, and it is the upper bound of what a distilled head can do. `HeadDriver` drives a generalist by
words, in chunks that are joined as they come (`distill.policy.ChunkBroker`).

Axes: T history, S state, H action horizon, A action; one world.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from distill.action_head import Guide
from distill.batch import Observation
from distill.generalist import Generalist
from distill.policy import ChunkBroker, ChunkRequest, History, blended
from distill.runtime_orders import Order
from tasks.env import TaskEnv
from tasks.errors import UserError
from tasks.task import Task

WARM_UPS = 20
"""Chunks that are computed before a run, to know how long one takes."""
INLINE_SHARE = 0.3
"""A chunk that takes less than this share of a control step is computed within it."""


class Driver(Protocol):
    """What acts in one world, told by orders."""

    def prepare(self, instruction: str) -> Order:
        """An order from words. Called from the slow loop. Raises UserError for words that it cannot take."""
        ...

    def act(self, env: TaskEnv, order: Order) -> Tensor:
        """Actions (1, A) of this step, on the environment's device."""
        ...

    def facts(self) -> dict[str, Any]:
        """Figures for the record."""
        ...

    def close(self) -> None:
        """End threads."""
        ...


class ExpertDriver:
    """An expert, told by numbers."""

    def __init__(self, policy: Callable[[Tensor], Tensor], task: Task) -> None:
        """Raises UserError for a task without commands."""
        if task.commands is None:
            raise UserError(f"task '{task.name}' has no commands; an expert of it cannot be told anything.")
        self._policy, self._commands = policy, task.commands
        self._told: Order | None = None

    def prepare(self, instruction: str) -> Order:
        """The command that a phrase says. Raises UserError for any other words."""
        return Order(instruction, self._commands.understand(instruction))

    @torch.no_grad()
    def act(self, env: TaskEnv, order: Order) -> Tensor:
        """The policy's action for the commanded numbers."""
        if order is not self._told:
            env.set_command(torch.zeros(1, dtype=torch.int64), torch.tensor([order.prepared]))
            self._told = order
        return self._policy(env.observe())

    def facts(self) -> dict[str, Any]:
        """Nothing of note."""
        return {"system_1": "expert"}

    def close(self) -> None:
        """Holds nothing."""


class HeadDriver:
    """A generalist, told by words. Where a chunk takes longer than a step leaves time for, a thread computes it while
    the one before is carried out."""

    def __init__(
        self, generalist: Generalist, skill: str, task: Task, *, step_s: float | None, seed: int = 0, noise: float = 1.0
    ) -> None:
        """
        Args:
            generalist: The head, its encoder and its skills.
            skill: Name of the task that the head was taught.
            task: The task that it acts in: its body is the skill's.
            step_s: Seconds of the machine's time that a control step has; None: as many as it takes.
            seed: Of the noise.
            noise: Standard deviation of the noise that a chunk starts from.

        Raises:
            UserError: a skill that was not taught.
        """
        self._body = generalist.embodiment(skill)
        self._head, self._encoder = generalist.head.eval(), generalist.context_encoder()
        self._commands, self._noise = task.commands, noise
        self._generator = torch.Generator().manual_seed(seed)
        self._known: dict[str, tuple[Tensor, Tensor]] = {}
        self._history = History(self._body.history)
        self._told: Order | None = None
        self._last: Tensor | None = None
        self._times: list[float] = []
        self._starved = 0
        self.chunk_s, delay = self._measure(guided=False), 0
        if step_s is not None and self.chunk_s > INLINE_SHARE * step_s:
            self.chunk_s = self._measure(guided=True)
            delay = math.ceil(2.0 * self.chunk_s / step_s)
        execute = self._body.execute
        if execute + delay > self._body.horizon:
            raise UserError(
                f"a chunk of '{self._body.name}' takes {1e3 * self.chunk_s:.0f} ms, {delay} control steps, and has "
                f"{self._body.horizon} actions of which {execute} are carried out: too slow for real time here; "
                "lower --speed."
            )
        self._broker = ChunkBroker(self._body.horizon, execute, delay)
        self._worker = _Worker(self._chunk) if delay else None

    @torch.no_grad()
    def prepare(self, instruction: str) -> Order:
        """Context tokens of the words, computed once for each phrase."""
        if instruction not in self._known:
            self._known[instruction] = self._encoder([instruction])
        return Order(instruction, self._known[instruction])

    @torch.no_grad()
    def act(self, env: TaskEnv, order: Order) -> Tensor:
        """The action that is due; where a chunk is too late for one, the last one once more.

        New words begin a new chunk at once where chunks are computed within a step, else with the next one.
        """
        if order is not self._told:
            if self._worker is None:
                self._broker.reset()
            self._note_command(env, order)
        states, mask = self._history.push(env.observe_told(), env.episode_step == 0)
        if self._worker is not None:
            for number, chunk in self._worker.finished():
                self._broker.deliver(number, chunk)
        request = self._broker.request()
        if request is not None:
            work = (request, states, mask, order)
            # Nothing runs before the first chunk: there is nothing to do but to wait for it.
            if self._worker is None or self._last is None:
                self._broker.deliver(request.number, self._chunk(*work))
            else:
                self._worker.start(request.number, work)
        action = self._broker.action()
        if action is None:
            self._starved += 1
            action = self._last if self._last is not None else torch.zeros(env.num_actions)
        self._last = action
        return action[None].to(env.device)

    def facts(self) -> dict[str, Any]:
        """How long chunks take, and what became of them."""
        return {
            "system_1": "head",
            "chunk_ms": 1e3 * self.chunk_s,
            "chunks": len(self._times),
            "chunk_ms_longest": 1e3 * max(self._times, default=0.0),
            "in_a_thread": self._worker is not None,
            "delay_steps": self._broker.delay,
            "late_chunks": self._broker.late,
            "dropped_chunks": self._broker.dropped,
            "steps_without_action": self._starved,
        }

    def close(self) -> None:
        """End the thread."""
        if self._worker is not None:
            self._worker.close()

    def _note_command(self, env: TaskEnv, order: Order) -> None:
        """Let the task know, for its records, where the words are a command of its list."""
        self._told = order
        if self._commands is None:
            return
        try:
            place = self._commands.understand(order.instruction)
        except UserError:
            return  # free language: no command of the list
        env.set_command(torch.zeros(1, dtype=torch.int64), torch.tensor([place]))

    @torch.no_grad()
    def _chunk(self, request: ChunkRequest, states: Tensor, mask: Tensor, order: Order) -> Tensor:
        """A chunk (H, A); where it comes later than it was asked for, held to what is carried out meanwhile."""
        began = time.perf_counter()
        tokens, token_mask = order.prepared
        shape = (1, self._body.horizon, self._body.action_size)
        noise = self._noise * torch.randn(shape, generator=self._generator)
        guide = None
        if self._guided and request.previous is not None and request.weights is not None:
            guide = Guide(request.previous[None], request.weights)
        seen = Observation(states, tokens, token_mask, mask)
        chunk = self._head.sample(self._body.name, seen, noise=noise, guide=guide)[0]
        if self._guided and self._head.config.objective == "regression":
            chunk = blended(request, chunk)
        self._times.append(time.perf_counter() - began)
        return chunk

    def _measure(self, guided: bool) -> float:
        """Median seconds of a chunk on this machine; `guided`: held to another one, as where chunks overlap."""
        body, self._guided = self._body, guided
        zeros = torch.zeros(1, body.history, body.state_size)
        guide = torch.zeros(body.horizon, body.action_size), torch.full((body.horizon,), 0.5)
        order = self.prepare("stand still")
        for _ in range(WARM_UPS):
            self._chunk(ChunkRequest(0, 0, *guide), zeros, torch.ones(1, body.history, dtype=torch.bool), order)
        found = sorted(self._times)[len(self._times) // 2]
        self._times.clear()
        return found


class _Worker:
    """A thread that computes one chunk at a time."""

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        self._compute = compute
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._started = self._ended = 0
        self._done: queue.SimpleQueue[tuple[int, Tensor | Exception]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="chunks", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether all that was started has ended."""
        return self._started == self._ended

    def start(self, number: int, work: tuple[Any, ...]) -> None:
        """Compute a chunk."""
        self._started += 1
        self._work.put((number, work))

    def finished(self) -> list[tuple[int, Tensor]]:
        """Chunks that have come, by number. Raises what computing one raised."""
        found = []
        while True:
            try:
                number, chunk = self._done.get_nowait()
            except queue.Empty:
                return found
            if isinstance(chunk, Exception):
                raise chunk
            found.append((number, chunk))

    def close(self) -> None:
        self._work.put(None)
        self._thread.join(5.0)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            number, work = item
            try:
                self._done.put((number, self._compute(*work)))
            except Exception as error:  # it is raised in the loop that waits for the chunk
                self._done.put((number, error))
            self._ended += 1
