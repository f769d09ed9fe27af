"""Our environments and rewards as rsl_rl sees them, and rsl_rl's PPO as we build it.

The reward of a step is computed from the state that the step reached, before any reset. In a world that
diverged it is 0: MuJoCo has silently put that world into its default state, which is no state of the episode.
Truncated episodes are handed over as `time_outs`, so rsl_rl bootstraps their value; terminated ones are not.

We drive `rsl_rl.algorithms.PPO` ourselves instead of through its runner, which prints, logs and synchronises
with the device at every step. Axes: N worlds, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rsl_rl.algorithms import PPO
from rsl_rl.env import VecEnv
from rsl_rl.models import MLPModel
from tensordict import TensorDict
from torch import Tensor

from rl.config import PPOConfig
from rl.rsl_speed import DiagonalGaussian, ShuffledStorage, split_rows
from tasks.env import EnvStep, TaskEnv
from tasks.signals import Signals

Reward = Callable[[Signals], tuple[Tensor, dict[str, Tensor]]]
"""Signals of N worlds -> total (N,), components (N,) each: a `rewards.function.RewardFunction`."""

OBSERVATION_GROUP = "policy"

EQUAL_RETURNS = 1e-6
"""A deviation below this is rounding: a constant reward has none."""
OUTLIER = 100.0
"""Deviations. A return farther from the median of its step counts as one at this distance, and a reward is no larger
for PPO (as in Stable-Baselines3's VecNormalize, at 10): one world that a contact threw into the air would otherwise set
the scale of all rewards for the rest of a training. What more than one return in 100^2 shows, such as a rare bonus
beside small costs, comes to count in full: each step that it is drawn in makes the deviation larger."""
NORMAL_RANGE = 3.29
"""From the 5 % to the 95 % quantile of a normal distribution, in deviations."""


@dataclass
class RewardedStep:
    """One step of N worlds with its reward."""

    env: EnvStep
    total: Tensor
    """(N,) what the reward program returned, unscaled; of a diverged world it means nothing."""
    components: dict[str, Tensor]
    """The program's components, (N,) each."""
    reward: Tensor
    """(N,) what PPO learns from: the total, 0 where the world diverged, over the deviation of the return."""


class ReturnDeviation:
    """The running standard deviation of the discounted return, over all worlds and steps so far.

    What Gymnasium's NormalizeReward divides by; after Engstrom et al. 2020, "Implementation matters in deep RL".
    Mean and variance are merged batch by batch (Chan, Golub and LeVeque 1979), outliers drawn in (winsorised). Stays on
    the device; nothing waits for it.
    """

    def __init__(self, num_envs: int, gamma: float, device: str) -> None:
        self.gamma = gamma
        self.returns = torch.zeros(num_envs, device=device)
        # count, mean, sum of squared differences from the mean
        self.moments = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, reward: Tensor, done: Tensor) -> Tensor:
        """Take in the rewards (N,) of one step; the deviation (), 1 as long as all returns are equal."""
        returns = self.returns * self.gamma + reward
        self.returns = torch.where(done, 0.0, returns)
        n = len(reward)
        count, mean, squares = self.moments
        batch_var, batch_mean = torch.var_mean(self._drawn_in(returns.double()), correction=0)
        delta, total = batch_mean - mean, count + n
        squares = squares + batch_var * n + delta.square() * count * n / total
        self.moments = torch.stack([total, mean + delta * n / total, squares])
        deviation = (squares / total).sqrt().float()
        return torch.where(deviation > EQUAL_RETURNS, deviation, 1.0)

    def _drawn_in(self, returns: Tensor) -> Tensor:
        """Returns (N,) without outliers: what counts is the deviation so far, or that of the middle nine tenths.
        Where both are 0, as in the first steps of a sparse reward, nothing is an outlier."""
        in_order = returns.sort().values
        n = len(returns)
        low, median, high = in_order[n // 20], in_order[n // 2], in_order[n - 1 - n // 20]
        count, _, squares = self.moments
        width = torch.maximum((high - low) / NORMAL_RANGE, (squares / count.clamp(min=1.0)).sqrt())
        limit = torch.where(width > 0.0, OUTLIER * width, torch.inf)
        return torch.clamp(returns, median - limit, median + limit)


def within(reward: Tensor) -> Tensor:
    """A normalised reward, no larger than `OUTLIER`; what is not finite stays so."""
    return torch.where(reward.isfinite(), reward.clamp(-OUTLIER, OUTLIER), reward)


class RslVecEnv(VecEnv):
    """A task environment with a reward program, for rsl_rl."""

    def __init__(self, env: TaskEnv, reward: Reward, deviation: ReturnDeviation | None = None) -> None:
        """`env` stays the caller's to close. The reward is divided by `deviation`, if there is one."""
        self.env = env
        self.reward = reward
        self.deviation = deviation
        self.num_envs = env.num_envs
        self.num_actions = env.num_actions
        self.max_episode_length = env.max_episode_steps
        self.device = env.device
        self.cfg: dict[str, object] = {}
        self.last: RewardedStep | None = None
        """The latest step; None before the first."""

    @property
    def episode_length_buf(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps played of each world's episode, (N,)."""
        return self.env.episode_step

    @episode_length_buf.setter
    def episode_length_buf(self, value: Tensor) -> None:
        self.env.episode_step.copy_(value)

    def get_observations(self) -> TensorDict:
        """The current observation under the group "policy", (N, O)."""
        return self._wrap(self.env.observe())

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Tensor]]:
        """Step all worlds by actions (N, A): next observation, reward (N,), done (N,), {"time_outs": (N,)
        bool}."""
        step = self.env.step(actions)
        total, components = self.reward(step.signals)
        reward = torch.where(step.reasons["diverged"], 0.0, total)
        if self.deviation is not None:
            reward = within(reward / self.deviation.add(reward, step.done))
        self.last = RewardedStep(step, total, components, reward)
        return self._wrap(step.observation), reward, step.done, {"time_outs": step.truncated}

    def _wrap(self, observation: Tensor) -> TensorDict:
        return TensorDict({OBSERVATION_GROUP: observation}, batch_size=[self.num_envs])


def make_actor(num_observations: int, num_actions: int, config: PPOConfig) -> MLPModel:
    """The policy network: observation (N, O) -> Gaussian with state-independent noise over actions (N, A)."""
    noise = {"class_name": DiagonalGaussian, "init_std": config.init_noise_std}
    return _make_mlp(num_observations, num_actions, config, noise)


def make_ppo(env: RslVecEnv, config: PPOConfig, steps_per_env: int, threads: int = 1) -> PPO:
    """rsl_rl's PPO with fresh networks (drawn from torch's global generator) for `env`.

    On a CPU an update uses `threads` threads of its own, so torch should have one.
    """
    num_observations = env.env.num_observations
    actor = make_actor(num_observations, env.num_actions, config)
    critic = make_critic(num_observations, config)
    threads = threads if torch.device(env.device).type == "cpu" else 1
    for model in (actor, critic):
        model.mlp = split_rows(model.mlp, threads)  # pyright: ignore[reportAttributeAccessIssue]
    storage = ShuffledStorage(
        "rl", env.num_envs, steps_per_env, env.get_observations(), [env.num_actions], str(env.device)
    )
    ppo = PPO(
        actor,
        critic,
        storage,
        num_learning_epochs=config.num_learning_epochs,
        num_mini_batches=config.num_mini_batches,
        clip_param=config.clip_param,
        use_clipped_value_loss=config.use_clipped_value_loss,
        gamma=config.gamma,
        lam=config.lam,
        value_loss_coef=config.value_loss_coef,
        entropy_coef=config.entropy_coef,
        learning_rate=config.learning_rate,
        max_grad_norm=config.max_grad_norm,
        schedule=config.schedule,
        desired_kl=config.desired_kl,
        device=str(env.device),
    )
    ppo.optimizer = make_optimizer(actor, critic, config.learning_rate)
    return ppo


def make_critic(num_observations: int, config: PPOConfig) -> MLPModel:
    """The value network: observation (N, O) -> value (N, 1)."""
    return _make_mlp(num_observations, 1, config, None)


def make_optimizer(actor: MLPModel, critic: MLPModel, learning_rate: float) -> torch.optim.Adam:
    """Adam on both networks, with one fused kernel per step instead of a dozen small ones per parameter."""
    return torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=learning_rate, fused=True)


def _make_mlp(num_inputs: int, num_outputs: int, config: PPOConfig, noise: dict | None) -> MLPModel:
    return MLPModel(
        TensorDict({OBSERVATION_GROUP: torch.zeros(1, num_inputs)}, batch_size=[1]),
        {"net": [OBSERVATION_GROUP]},
        "net",
        num_outputs,
        hidden_dims=config.hidden_dims,
        activation=config.activation,
        obs_normalization=config.obs_normalization,
        distribution_cfg=noise,
    )
