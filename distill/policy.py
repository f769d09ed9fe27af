"""From chunks to actions: which action is due, when the next chunk is asked for, and how chunks are joined.

`ChunkBroker` serves one body in real time. While it carries out a chunk, the next one is already being computed from
what was seen when it was asked for; when it comes, it is `delay` actions old. Real-time chunking (arXiv 2506.07339):
the actions that are carried out meanwhile are settled, and the new chunk keeps them; those after them are held to the
old chunk less and less, so that the joint does not jerk. The broker starts nothing and waits for nothing: whoever owns
it computes chunks where they like, and a test delays them as it likes. Time is counted in control steps.

`ChunkedPolicy` serves many simulated worlds in step, where computing takes no time.

Knows nothing of networks, simulators, threads or clocks.

Axes: N worlds, T history, S state, H action horizon, A action.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.errors import UserError


@dataclass(frozen=True)
class ChunkRequest:
    """A chunk that is to be computed from what is seen now."""

    number: int
    """Name of the request, rising."""
    step: int
    """Control step of its first action: the present one."""
    previous: Tensor | None
    """What the running chunk has left, (H, A), from `step` on, its last action repeated behind its end; None: nothing
    runs."""
    weights: Tensor | None
    """(H,): how far the new chunk is held to it, from 1 (settled) to 0."""


def joint_weights(horizon: int, delay: int, overlap: int) -> Tensor:
    """How far each action (H,) of a new chunk is held to the old one.

    1 for the first `delay` actions, carried out before the chunk comes; then falling to 0 at `overlap`, where the old
    chunk ends: c (e^c - 1) / (e - 1) with c from 1 to 0 (arXiv 2506.07339, eq. 5).
    """
    weights = torch.zeros(horizon)
    for index in range(min(overlap, horizon)):
        if index < delay:
            weights[index] = 1.0
        else:
            c = (overlap - index) / (overlap - delay + 1)
            weights[index] = c * math.expm1(c) / (math.e - 1.0)
    return weights


class ChunkBroker:
    """Serves actions out of chunks, one each control step.

    Each step, in this order: `deliver` what has come, `request` and start computing what it returns, `action`.
    """

    def __init__(self, horizon: int, execute: int, delay: int) -> None:
        """
        Args:
            horizon: Actions of a chunk, H.
            execute: Actions of a chunk that are carried out before the next one is asked for, from 1.
            delay: Control steps that computing may take: 0, it comes within its step. The actions of this long are
                settled when a chunk is asked for.

        Raises:
            UserError: a chunk would be used up before the next one can be there.
        """
        if not (horizon >= 1 and execute >= 1 and delay >= 0):
            raise UserError(f"chunks of {horizon}, {execute} carried out, delay {delay}: expected at least 1, 1 and 0.")
        if execute + delay > horizon:
            raise UserError(
                f"a chunk has {horizon} actions, but {execute} are carried out before the next is asked for, and "
                f"{delay} more until it comes: lower execute, or make chunks longer."
            )
        self.horizon, self.execute, self.delay = horizon, execute, delay
        self.late = 0
        """Chunks that came later than `delay` says, and were carried out nevertheless."""
        self.dropped = 0
        """Chunks that came for an episode that is over, or after a newer one, or when all their actions were past."""
        self._asked = 0
        self.reset()

    def reset(self) -> None:
        """Forget the running chunk and what is being computed: a new episode begins."""
        self._step = 0
        self._chunk: Tensor | None = None
        self._chunk_step = 0
        self._pending: ChunkRequest | None = None

    def request(self) -> ChunkRequest | None:
        """The chunk to compute from what is seen at this step, or None if none is due or one is being computed."""
        used = self._step - self._chunk_step
        if self._pending is not None or (self._chunk is not None and used < self.execute):
            return None
        previous = weights = None
        if self._chunk is not None and used < self.horizon:
            left = self._chunk[used:]
            previous = torch.cat([left, left[-1:].expand(used, -1)])
            weights = joint_weights(self.horizon, min(self.delay, len(left)), len(left))
        self._pending = ChunkRequest(self._asked, self._step, previous, weights)
        self._asked += 1
        return self._pending

    def deliver(self, number: int, chunk: Tensor) -> bool:
        """Take the chunk (H, A) of a request; its past actions are skipped.

        Actions that were carried out meanwhile are what they were: the chunk is read from the present step on. Returns
        whether it is used: one for an episode that is over is not. Raises UserError for another shape.
        """
        actions = "actions" if self._chunk is None else self._chunk.shape[1]
        if chunk.ndim != 2 or len(chunk) != self.horizon or actions not in ("actions", chunk.shape[1]):
            raise UserError(f"a chunk has shape {tuple(chunk.shape)}, expected ({self.horizon}, {actions}).")
        if self._pending is None or number != self._pending.number:
            self.dropped += 1
            return False
        request, self._pending = self._pending, None
        waited = self._step - request.step
        if waited >= self.horizon:
            self.dropped += 1
            return False
        self.late += waited > self.delay
        if request.previous is not None and request.weights is not None:
            # Settled actions are kept to the bit, whoever made the chunk and however well it was held to them.
            settled = (request.weights == 1.0)[:, None]
            chunk = torch.where(settled, request.previous, chunk)
        self._chunk, self._chunk_step = chunk.clone(), request.step
        return True

    def action(self) -> Tensor | None:
        """The action (A,) of this step, and on to the next step.

        None: no chunk has one. The caller knows what its body does then (hold still, brake, stop).
        """
        used = self._step - self._chunk_step
        self._step += 1
        if self._chunk is None or used >= self.horizon:
            return None
        return self._chunk[used].clone()


def blended(request: ChunkRequest, chunk: Tensor) -> Tensor:
    """A chunk (H, A) drawn to what the running one has left, by the request's weights.

    For heads that cannot be held to it while they make a chunk (regression).
    """
    if request.previous is None or request.weights is None:
        return chunk
    weights = request.weights[:, None].to(chunk)
    return weights * request.previous + (1.0 - weights) * chunk


class History:
    """The last observations of N worlds and which of them are of the running episode."""

    def __init__(self, length: int) -> None:
        """length: observations kept, T, the present one included."""
        self._length = length
        self._seen: deque[tuple[Tensor, Tensor]] = deque(maxlen=length)

    def push(self, state: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Add states (N, S); `first` (N,) bool: where an episode begins with them.

        Returns:
            States (N, T, S), oldest first, and their mask (N, T); places before the episode hold zeros.
        """
        earlier = [(old, valid & ~first) for old, valid in self._seen]
        self._seen.clear()
        self._seen.extend([*earlier, (state.clone(), torch.ones_like(first))])
        missing = self._length - len(self._seen)
        states = [torch.zeros_like(state)] * missing + [old for old, _ in self._seen]
        masks = [torch.zeros_like(first)] * missing + [valid for _, valid in self._seen]
        mask = torch.stack(masks, dim=1)
        return torch.where(mask[:, :, None], torch.stack(states, dim=1), states[-1].new_zeros(())), mask


class ChunkedPolicy:
    """Actions for N worlds in step: each carries out `execute` actions of a chunk, or fewer where an episode ends."""

    def __init__(self, plan: Callable[[Tensor, Tensor, Tensor], Tensor], execute: int, history: int) -> None:
        """
        Args:
            plan: States (n, T, S), their mask (n, T) and the worlds' numbers (n,) int64 to chunks (n, H, A).
            execute: Actions of a chunk that are carried out.
            history: Observations that `plan` is given, T.
        """
        self._plan = plan
        self._execute = execute
        self._history = History(history)
        self._chunks: Tensor | None = None
        self._used = torch.zeros(0, dtype=torch.int64)

    def __call__(self, state: Tensor, first: Tensor, anew: Tensor | None = None) -> Tensor:
        """Actions (N, A) for states (N, S).

        Args:
            state: What each world sees.
            first: (N,) bool: where an episode begins with it.
            anew: (N,) bool: where a new chunk begins in any case, as after a change of words. None: nowhere.

        Raises:
            UserError: chunks are shorter than what is to be carried out.
        """
        states, mask = self._history.push(state, first)
        due = torch.ones_like(first) if self._chunks is None else first | (self._used >= self._execute)
        due = due if anew is None else due | anew
        worlds = due.nonzero()[:, 0]
        if len(worlds):
            chunks = self._plan(states[worlds], mask[worlds], worlds)
            if chunks.shape[1] < self._execute:
                raise UserError(f"chunks of {chunks.shape[1]} actions, of which {self._execute} are to be carried out.")
            if self._chunks is None:
                self._chunks = chunks.clone()
                self._used = torch.zeros_like(worlds)
            else:
                self._chunks[worlds] = chunks
                self._used[worlds] = 0
        assert self._chunks is not None, "the first call plans for all worlds"
        actions = self._chunks[torch.arange(len(state), device=state.device), self._used]
        self._used = self._used + 1
        return actions
