"""A running Isaac Lab environment with the surface of `tasks.env.TaskEnv`: what trains and measures need not know.

It imports nothing of Isaac Lab: it is handed an environment (`tasks.isaaclab.launch` builds one). The environment's own
reward is still computed, because tasks count successes, choose new goals and refresh their quantities in it; its value
is kept apart, and what the environment passes on as its reward is the program's. Signals are read after the reward has
brought up to date what it reads, and before it changes anything: a reward sees the goal that the action was for.

Axes: N worlds, O observation, A action. Unlike our own backends this one does not clip actions: Isaac Lab's tasks take
any number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tasks.env import EnvStep
from tasks.errors import UserError
from tasks.isaaclab.discover import Reader, read_entry, readers
from tasks.isaaclab.found import FoundSignal
from tasks.signals import Signal, Signals, SignalTable
from tasks.task import Task

FITNESS = "_fitness"
"""Key of the fitness among a step's signals. It is in no table, so no program can name it."""

Reward = Callable[[Signals], tuple[Tensor, dict[str, Tensor]]]


class IsaacLabEnv:
    """N worlds of one Isaac Lab task."""

    def __init__(
        self,
        task: Task,
        raw: Any,
        found: list[FoundSignal],
        *,
        refreshed: list[str],
        entry: str,
        release: Callable[[Any], None] | None = None,
    ) -> None:
        """Take over an environment and start its episodes.

        Args:
            task: Ours; its fitness reads `FITNESS`.
            raw: A DirectRLEnv or ManagerBasedRLEnv.
            found: Where signals are, as the source tells.
            refreshed: Methods that the environment's reward calls first, to bring up to date what it reads.
            entry: What the fitness is: an attribute of the environment or an entry of its log; "": its own reward.
            release: Closes the environment; None: its own `close`.

        Raises:
            UserError: observations or actions are not plain vectors.
        """
        self.task, self.raw, self.entry = task, raw, entry
        self.num_envs, self.device = int(raw.num_envs), str(raw.device)
        self.num_actions = _num_actions(raw)
        self.max_episode_steps = int(raw.max_episode_length)
        self.needed: frozenset[str] | None = None
        """Names of the signals that a step gives; None: all of the table."""
        self._release = release
        self._open = True
        self._refreshed = [name for name in refreshed if callable(getattr(raw, name, None))]
        self._actions = torch.zeros(self.num_envs, self.num_actions, device=self.device)
        self._previous = self._actions
        self._reward: Reward | None = None
        self._rewarded: tuple[Tensor, dict[str, Tensor]] | None = None
        self._signals: Signals | None = None
        self._reasons: dict[str, Tensor] = {}
        self._apart = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._observation = self.reset()
        self.num_observations = int(self._observation.shape[1])
        self._found = found
        self._readers: list[tuple[Signal, Reader]] | None = None
        self._install()

    @property
    def signal_table(self) -> SignalTable:
        """The signals that were found on the running environment. Before its first step this makes one with actions of
        0, since some buffers are made in a step, and starts new episodes."""
        if self._readers is None:
            self.step(torch.zeros_like(self._actions))
            self.reset()
        assert self._readers is not None
        return SignalTable(signal for signal, _ in self._readers)

    @property
    def episode_step(self) -> Tensor:
        """Steps played of each world's episode, (N,); the environment's own counter."""
        return self.raw.episode_length_buf

    def replace_reward(self, reward: Reward) -> Reward:
        """Let a program be the environment's reward from the next step on.

        Returns:
            What gives the values of the latest step, once for each step, as a reward function would.
        """
        self._reward = reward
        inputs = getattr(reward, "inputs", None)
        self.needed = frozenset(inputs) if inputs is not None else None

        def latest(signals: Signals) -> tuple[Tensor, dict[str, Tensor]]:
            if self._rewarded is None:
                raise RuntimeError("the environment has made no step since its reward was asked for")
            values, self._rewarded = self._rewarded, None
            return values

        return latest

    def reset(self) -> Tensor:
        """Start a new episode in every world. Returns the observation (N, O)."""
        observation, _ = self.raw.reset()
        # Some tasks start their worlds at random points of the time limit; a held-out episode has to be whole.
        self.raw.episode_length_buf.zero_()
        self._actions = torch.zeros_like(self._actions)
        self._previous = self._actions
        self._observation = self._policy_group(observation)
        return self._observation

    def observe(self) -> Tensor:
        """The present observation (N, O)."""
        return self._observation

    def observe_told(self) -> Tensor:
        """The same: these tasks do one thing, which needs no words."""
        return self._observation

    def step(self, actions: Tensor) -> EnvStep:
        """Play one control step by actions (N, A), which are not clipped."""
        self._previous, self._actions = self._actions, actions.detach().to(self.device, torch.float32)
        self._signals = None
        observation, _, terminated, truncated, _ = self.raw.step(self._actions)
        if self._signals is None:
            raise RuntimeError(f"task '{self.task.name}': the environment asked for no reward in its step")
        terminated = terminated.bool().clone()
        truncated = truncated.bool() & ~terminated
        done = terminated | truncated
        self._observation = self._policy_group(observation)
        self._actions = torch.where(done[:, None], 0.0, self._actions)
        return EnvStep(self._observation, self._signals, terminated, truncated, self._reasons, done)

    def log_apart(self) -> dict[str, float]:
        """The mean of the environment's own reward per step since the last call: for people, never for a designer."""
        total, steps = self._apart.tolist()
        self._apart = torch.zeros_like(self._apart)
        return {"original_reward_mean": total / steps} if steps else {}

    def close(self) -> None:
        """Release the worlds; a second time does nothing."""
        if self._open:
            self._open = False
            self._release(self.raw) if self._release else self.raw.close()

    def _own(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "actions": lambda: self._actions,
            "previous_actions": lambda: self._previous,
            "env_origins": lambda: self.raw.scene.env_origins,
        }

    def _install(self) -> None:
        """Put ourselves between the environment and its reward."""
        raw = self.raw
        if hasattr(raw, "reward_manager"):
            original = raw.reward_manager.compute
            raw.reward_manager.compute = lambda dt: self._around(lambda: original(dt=dt))
        else:
            own = raw._get_rewards
            raw._get_rewards = lambda: self._around(own)

    def _around(self, original: Callable[[], Tensor]) -> Tensor:
        """Called by the environment in place of its reward: after the physics, before any reset."""
        if self._refreshed:
            own = self._with_signals_after(self._refreshed[-1], original)
        else:
            self._take()
            own = original()
        own = own.detach().to(torch.float32)
        self._apart += torch.stack([own.nansum().double(), own.new_tensor(float(own.numel())).double()])
        assert self._signals is not None
        self._signals[FITNESS] = (
            (read_entry(self.raw, self.entry) if self.entry else own).reshape(self.num_envs, 1).clone()
        )
        bad = self._diverged()
        self._reasons = self._ended(bad)
        # Between this call and its resets the environment looks at both once more (direct_rl_env.py and
        # manager_based_rl_env.py, step, 2.3); a world that blew up is reset like one that failed.
        self.raw.reset_terminated = self.raw.reset_terminated | bad
        self.raw.reset_buf = self.raw.reset_buf | bad
        if self._reward is None:
            return own
        self._rewarded = self._reward(self._signals)
        return torch.where(bad, 0.0, self._rewarded[0])

    def _with_signals_after(self, name: str, original: Callable[[], Tensor]) -> Tensor:
        """The original reward, with the signals taken right after its last refreshing call."""
        real = getattr(self.raw, name)

        def once() -> Any:
            delattr(self.raw, name)
            result = real()
            self._take()
            return result

        setattr(self.raw, name, once)
        own = original()
        if self._signals is None:
            raise RuntimeError(f"task '{self.task.name}': its reward did not call {name}() as its source says")
        return own

    def _take(self) -> None:
        """Copy the signals: the environment's buffers change with the resets that follow."""
        if self._readers is None:
            self._readers = readers(self.raw, self._found, self._own())
        self._signals = {
            signal.name: read().clone()
            for signal, read in self._readers
            if self.needed is None or signal.name in self.needed
        }

    def _diverged(self) -> Tensor:
        """Worlds with an asset whose state is not finite, (N,) bool: the engine does not tell."""
        bad = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        scene = self.raw.scene
        for asset in (*scene.articulations.values(), *scene.rigid_objects.values()):
            bad = bad | ~torch.isfinite(asset.data.root_pos_w.reshape(self.num_envs, -1)).all(dim=1)
        for asset in scene.articulations.values():
            state = torch.cat([asset.data.joint_pos, asset.data.joint_vel], dim=1)
            bad = bad | ~torch.isfinite(state).all(dim=1)
        return bad

    def _ended(self, bad: Tensor) -> dict[str, Tensor]:
        manager = getattr(self.raw, "termination_manager", None)
        if manager is None:
            reasons = {"terminated": self.raw.reset_terminated.bool() & ~bad}
        else:
            failures = [name for name in manager.active_terms if not manager.get_term_cfg(name).time_out]
            reasons = {name: manager.get_term(name).bool().clone() for name in failures}
        return reasons | {"diverged": bad}

    def _policy_group(self, observation: Any) -> Tensor:
        group = observation.get("policy") if isinstance(observation, dict) else None
        if not isinstance(group, Tensor) or group.ndim != 2:
            came = type(group).__name__ if not isinstance(group, Tensor) else f"a tensor {tuple(group.shape)}"
            raise UserError(
                f"task '{self.task.name}': the observation group 'policy' is {came}; a policy here takes one vector a "
                "world, so tasks with images or separate terms cannot be trained."
            )
        return group.detach().to(torch.float32)


def _num_actions(raw: Any) -> int:
    manager = getattr(raw, "action_manager", None)
    if manager is not None:
        return int(manager.total_action_dim)
    shape = getattr(raw.single_action_space, "shape", None)
    if not shape or hasattr(raw.single_action_space, "n") or hasattr(raw.single_action_space, "nvec"):
        raise UserError(f"the action space is {raw.single_action_space}; a policy here gives a vector of numbers.")
    return math.prod(shape)
