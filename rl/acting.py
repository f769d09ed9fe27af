"""Who acts in worlds: a policy, which is shown the observation alone, or an actor, which looks at the worlds itself.

What a policy that is told by words is shown, and what it is told, depends on the task; chunks of actions need memory.
Such an actor serves one environment from its first step on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from tasks.env import TaskEnv

Policy = Callable[[Tensor], Tensor]
"""Observation (N, O) -> actions (N, A)."""


class Acting(Protocol):
    """What acts by looking at the worlds."""

    def act(self, env: TaskEnv) -> Tensor:
        """Actions (N, A) for the present state. Called once each step; changes nothing in `env`."""
        ...


Player = Policy | Acting
"""Either."""


def actions_of(player: Player, env: TaskEnv) -> Tensor:
    """The player's actions (N, A) for the present state."""
    act = getattr(player, "act", None)
    return player(env.observe()) if act is None else act(env)  # type: ignore[operator]
